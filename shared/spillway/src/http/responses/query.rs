//! The query of `GET /v1/responses/{id}`.

use crate::problem::Problem;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query {
    /// Events instead of the response.
    pub is_stream: bool,
    /// Only the events after the one with this number.
    pub starting_after: Option<u64>,
}

impl Query {
    /// Reads a query. What only decorates a response (`include`, `include_obfuscation`) changes nothing.
    ///
    /// # Errors
    /// A value that cannot be meant.
    pub fn read(query: &str) -> Result<Self, Problem> {
        let mut read = Self::default();
        for (name, value) in query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            match (name, value) {
                ("stream", "true") => read.is_stream = true,
                ("stream", "false" | "") => read.is_stream = false,
                ("stream", _) => return Err(Problem::invalid("stream", "stream must be true or false.")),
                ("starting_after", value) => {
                    let wrong = |_| Problem::invalid("starting_after", "starting_after must be a sequence number.");
                    read.starting_after = Some(value.parse().map_err(wrong)?);
                }
                _ => {}
            }
        }
        if read.starting_after.is_some() && !read.is_stream {
            return Err(Problem::invalid("starting_after", "starting_after needs stream=true."));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_the_response_or_for_its_events() {
        for query in ["", "stream=false", "include%5B%5D=message.output_text.logprobs"] {
            assert_eq!(Query::read(query), Ok(Query::default()), "{query}");
        }
        let events = Query { is_stream: true, starting_after: Some(41) };
        assert_eq!(Query::read("starting_after=41&stream=true&include_obfuscation=false"), Ok(events));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (query, name) in [
            ("stream=yes", "stream"),
            ("stream=true&starting_after=-1", "starting_after"),
            ("stream=true&starting_after=", "starting_after"),
            ("starting_after=1", "starting_after"),
        ] {
            assert_eq!(Query::read(query).expect_err(query).param.as_deref(), Some(name), "{query}");
        }
    }
}
