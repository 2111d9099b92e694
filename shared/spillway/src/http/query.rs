//! The query of a list: a few known names, each once.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;

use crate::problem::{Kind, Problem};

/// The values of a query by name, percent-decoded.
#[derive(Debug)]
pub struct Query<'a>(HashMap<&'a str, String>);

impl<'a> Query<'a> {
    /// Reads a query that may have these names.
    ///
    /// # Errors
    /// It has another name, one twice, or a value that is no UTF-8.
    pub fn read(query: Option<&'a str>, names: &[&str]) -> Result<Self, Problem> {
        let mut values = HashMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8().map_err(|_| invalid(name, "valid UTF-8"))?;
            if !names.contains(&name) {
                return Err(invalid(name, &format!("one of {}", names.join(", "))));
            }
            if values.insert(name, value.into_owned()).is_some() {
                return Err(invalid(name, "given once"));
            }
        }
        Ok(Self(values))
    }

    /// The value of `name`; an empty one counts as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// How many are wanted: `limit`, of 1 to `most`.
    ///
    /// # Errors
    /// It is no such number.
    pub fn limit(&self, default: usize, most: usize) -> Result<usize, Problem> {
        let Some(value) = self.get("limit") else { return Ok(default) };
        let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| invalid("limit", &format!("1 to {most}")))
    }
}

/// A query parameter that is not what it must be.
pub fn invalid(name: &str, must_be: &str) -> Problem {
    let shown: String = name.chars().take(40).collect();
    let told = format!("The query parameter {shown} must be {must_be}.");
    Problem { param: Some(shown), ..Problem::new(Kind::Invalid, told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_read_once_and_others_refused() {
        let read = |query| Query::read(Some(query), &["limit", "after"]);
        let query = read("limit=7&after=a%20b").expect("a query");
        assert_eq!((query.limit(20, 100), query.get("after")), (Ok(7), Some("a b")));
        assert_eq!(read("").expect("empty").limit(20, 100), Ok(20));
        for (text, name) in [("page=1", "page"), ("limit=1&limit=2", "limit"), ("after=%ff", "after")] {
            assert_eq!(read(text).err().and_then(|problem| problem.param).as_deref(), Some(name), "{text}");
        }
        for text in ["limit=0", "limit=101", "limit=x"] {
            assert!(read(text).expect(text).limit(20, 100).is_err(), "{text}");
        }
    }
}
