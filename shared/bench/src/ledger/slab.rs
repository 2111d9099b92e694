//! Numbered places that are used again.

#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> usize {
        if let Some(place) = self.free.pop() {
            self.places[place] = Some(value);
            return place;
        }
        self.places.push(Some(value));
        self.places.len() - 1
    }

    /// Takes the value out; its place is used again.
    pub fn remove(&mut self, place: usize) -> T {
        self.free.push(place);
        self.places[place].take().expect("a place in use")
    }

    pub fn get(&self, place: usize) -> &T {
        self.places[place].as_ref().expect("a place in use")
    }

    pub fn get_mut(&mut self, place: usize) -> &mut T {
        self.places[place].as_mut().expect("a place in use")
    }
}
