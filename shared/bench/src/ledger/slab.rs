//! A slab: values by index, whose indexes are reused.

#[derive(Debug)]
pub struct Slab<T> {
    values: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, value: T) -> usize {
        if let Some(index) = self.free.pop() {
            self.values[index] = Some(value);
            return index;
        }
        self.values.push(Some(value));
        self.values.len() - 1
    }

    /// Removes the value. Its index is reused.
    pub fn remove(&mut self, index: usize) -> T {
        self.free.push(index);
        self.values[index].take().expect("an index in use")
    }

    pub fn get(&self, index: usize) -> &T {
        self.values[index].as_ref().expect("an index in use")
    }

    pub fn get_mut(&mut self, index: usize) -> &mut T {
        self.values[index].as_mut().expect("an index in use")
    }
}
