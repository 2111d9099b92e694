//! The query of a list or a stream.

use std::borrow::Cow;

use crate::problem::{Kind, Problem};

/// Maximum of characters of a parameter's name that an error repeats.
const MAX_SHOWN_CHARS: usize = 40;

/// The parameters of a query, percent-decoded.
#[derive(Debug)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads a query that has no other parameters than `names`.
    ///
    /// # Errors
    /// Returns an error if a parameter has another name or is given twice.
    pub fn read(query: Option<&'a str>, names: &[&str]) -> Result<Self, Problem> {
        let query = Self::parse(query);
        match query.0.iter().find(|(name, _)| !names.contains(&&**name)) {
            Some((name, _)) => Err(invalid(name, &format!("one of {}", names.join(", ")))),
            None => query.without_duplicates(),
        }
    }

    /// Reads the parameters `names` of a query and ignores others.
    ///
    /// # Errors
    /// Returns an error if one of these parameters is given twice.
    pub fn read_known(query: Option<&'a str>, names: &[&str]) -> Result<Self, Problem> {
        let mut query = Self::parse(query);
        query.0.retain(|(name, _)| names.contains(&&**name));
        query.without_duplicates()
    }

    fn parse(query: Option<&'a str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect())
    }

    fn without_duplicates(self) -> Result<Self, Problem> {
        let mut pairs = self.0.iter().enumerate();
        match pairs.find(|(index, (name, _))| self.0[..*index].iter().any(|(earlier, _)| earlier == name)) {
            Some((_, (name, _))) => Err(invalid(name, "given once")),
            None => Ok(self),
        }
    }

    /// The value of the parameter `name`; `None` if it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// The page size `limit`.
    ///
    /// # Errors
    /// Returns an error if it is not a number from 1 to `max`.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(value) = self.get("limit") else { return Ok(default) };
        let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
        limit.ok_or_else(|| invalid("limit", &format!("1 to {max}")))
    }

    /// Whether the parameter `order` asks for the oldest entries first. The default is the newest.
    ///
    /// # Errors
    /// Returns an error if it is neither `asc` nor `desc`.
    pub fn is_oldest_first(&self) -> Result<bool, Problem> {
        match self.get("order") {
            None | Some("desc") => Ok(false),
            Some("asc") => Ok(true),
            Some(_) => Err(invalid("order", "asc or desc")),
        }
    }
}

/// The error for a query parameter that must be something else.
pub fn invalid(name: &str, must_be: &str) -> Problem {
    let shown: String = name.chars().take(MAX_SHOWN_CHARS).collect();
    let message = format!("The query parameter {shown} must be {must_be}.");
    Problem { param: Some(shown), ..Problem::new(Kind::Invalid, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["limit", "after"];

    #[test]
    fn values_are_decoded() {
        let query = Query::read(Some("limit=7&after=a%20b"), &NAMES).expect("a query");
        assert_eq!((query.limit(20, 100), query.get("after")), (Ok(7), Some("a b")));
        let empty = Query::read(Some("after="), &NAMES).expect("a query");
        assert_eq!((empty.limit(20, 100), empty.get("after")), (Ok(20), None));
    }

    #[test]
    fn a_parameter_that_is_unknown_or_repeated_is_refused_by_name() {
        for (query, name) in [("page=1", "page"), ("limit=1&limit=2", "limit"), ("limit=1&%66=2", "f")] {
            let refusal = Query::read(Some(query), &NAMES).expect_err(query);
            assert_eq!(refusal.param.as_deref(), Some(name), "{query}");
        }
        let known = |query| Query::read_known(Some(query), &NAMES);
        assert_eq!(known("page=1&page=2&limit=3").expect("ignored").limit(20, 100), Ok(3));
        assert_eq!(known("limit=1&limit=2").expect_err("repeated").param.as_deref(), Some("limit"));
    }

    #[test]
    fn a_limit_is_a_number_in_its_range() {
        for query in ["limit=0", "limit=101", "limit=x", "limit=-1"] {
            assert!(Query::read(Some(query), &NAMES).expect(query).limit(20, 100).is_err(), "{query}");
        }
    }
}
