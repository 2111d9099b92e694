//! Failures before the first byte of an answer: error bodies, statuses and retry headers.

use serde_json::{Value, json};
use spillway::{
    dialect::{Api, Dialect, Rendered},
    problem::{ExceededLimits, Kind, Problem, RefusedBy},
    quota::Limit,
    units::Millis,
};

const DIALECTS: [Dialect; 3] = [Dialect::OpenAi, Dialect::Anthropic, Dialect::Bedrock];

fn header<'r>(rendered: &'r Rendered, name: &str) -> Option<&'r str> {
    let header = rendered.headers.iter().find(|(header, _)| header == name);
    header.map(|(_, value)| value.to_str().expect("text"))
}

fn throttled(retry_after_ms: u64) -> Problem {
    Problem { retry_after: Some(Millis::from_ms(retry_after_ms)), ..Problem::new(Kind::Throttled, "Wait.") }
}

fn body(rendered: &Rendered) -> Value {
    serde_json::from_slice(&rendered.body).expect("an error is JSON")
}

#[test]
fn the_error_for_an_unreadable_body_says_what_is_wrong_and_where() {
    let deep = "[".repeat(200);
    let cases: [(&[u8], &str); 7] = [
        (b"", "The body is empty; expected a JSON object."),
        (b" \n", "The body is empty; expected a JSON object."),
        (b"{\"a\": \xff}", "The body is not UTF-8: byte 6 is wrong."),
        (b"{\n \"secret\" 1}", "The body is not valid JSON: syntax error at line 2, column 11."),
        (b"{\"a\": [", "The body is not valid JSON: it ends too early, at line 1, column 7."),
        (b"[]", "The body: expected an object, got an array"),
        (deep.as_bytes(), "The body is nested deeper than 64 levels; send arrays and objects that are less deep."),
    ];
    for api in [Api::ChatCompletions, Api::Embeddings, Api::Messages, Api::Converse, Api::Invoke] {
        for (bytes, message) in cases {
            let problem = api.read(bytes, Some("m"), false).expect_err("an error");
            assert_eq!((problem.kind, problem.message.as_str()), (Kind::Invalid, message));
        }
    }
}

#[test]
fn each_dialect_has_its_own_status_and_code_for_a_failure() {
    for (kind, openai, anthropic, bedrock) in [
        (Kind::Invalid, (400, "invalid_request"), (400, "invalid_request_error"), (400, "ValidationException")),
        (
            Kind::Unauthenticated,
            (401, "invalid_api_key"),
            (401, "authentication_error"),
            (403, "UnrecognizedClientException"),
        ),
        (
            Kind::BudgetExhausted,
            (402, "insufficient_quota"),
            (402, "billing_error"),
            (400, "ServiceQuotaExceededException"),
        ),
        (Kind::Forbidden, (403, "permission_denied"), (403, "permission_error"), (403, "AccessDeniedException")),
        (Kind::NotFound, (404, "not_found"), (404, "not_found_error"), (404, "ResourceNotFoundException")),
        (
            Kind::MethodNotAllowed,
            (405, "method_not_allowed"),
            (405, "invalid_request_error"),
            (405, "UnknownOperationException"),
        ),
        (Kind::Conflict, (409, "conflict"), (409, "conflict_error"), (409, "ConflictException")),
        (Kind::TooLarge, (413, "request_too_large"), (413, "request_too_large"), (413, "ValidationException")),
        (
            Kind::UnsupportedEncoding,
            (415, "unsupported_content_encoding"),
            (415, "invalid_request_error"),
            (415, "ValidationException"),
        ),
        (Kind::Throttled, (429, "rate_limit_exceeded"), (429, "rate_limit_error"), (429, "ThrottlingException")),
        (Kind::Model, (502, "model_error"), (502, "api_error"), (424, "ModelErrorException")),
        (Kind::Unavailable, (503, "unavailable"), (503, "overloaded_error"), (503, "ServiceUnavailableException")),
        (Kind::Timeout, (504, "timeout"), (504, "timeout_error"), (408, "ModelTimeoutException")),
        (Kind::Internal, (500, "internal_error"), (500, "api_error"), (500, "InternalServerException")),
    ] {
        let rendered = DIALECTS.map(|dialect| dialect.problem("r1", &Problem::new(kind, "Why.")));
        assert_eq!(rendered.each_ref().map(|rendered| rendered.status.as_u16()), [openai.0, anthropic.0, bedrock.0]);
        assert_eq!(body(&rendered[0])["error"]["code"], openai.1);
        assert_eq!(
            body(&rendered[1]),
            json!({"type": "error", "error": {"type": anthropic.1, "message": "Why."}, "request_id": "r1"})
        );
        assert_eq!(header(&rendered[2], "x-amzn-errortype"), Some(bedrock.1));
        assert_eq!(body(&rendered[2]), json!({"message": "Why."}));
    }
}

#[test]
fn the_error_for_a_wrong_field_has_its_name() {
    let rendered = Dialect::OpenAi.problem("r1", &Problem::invalid("messages[0].role", "Why."));
    let error = json!({"message": "Why.", "type": "invalid_request_error", "param": "messages[0].role",
        "code": "invalid_request"});
    assert_eq!(body(&rendered), json!({"error": error}));
    assert_eq!(header(&rendered, "x-request-id"), Some("r1"));
}

#[test]
fn a_throttled_reply_says_when_to_retry_and_which_limit_refused() {
    let limits = vec![Limit::TokensPerMinute, Limit::InFlight];
    let exceeded = ExceededLimits { payer: "acme".to_owned(), limits, limit_states: Vec::new() };
    let refused_by = Some(RefusedBy::Limits(Box::new(exceeded)));
    let problem = Problem { refused_by, ..throttled(2001) };
    for dialect in DIALECTS {
        let rendered = dialect.problem("r1", &problem);
        assert_eq!(header(&rendered, "retry-after"), Some("3"));
        assert_eq!(header(&rendered, "retry-after-ms"), Some("2001"));
        assert_eq!(header(&rendered, "x-spillway-limit"), Some("tokens_per_minute, in_flight"));
        assert_eq!(header(&rendered, "x-spillway-limit-of"), Some("acme"));
        assert_eq!(header(&rendered, "x-should-retry"), None);
    }
    assert_eq!(body(&Dialect::OpenAi.problem("r1", &problem))["error"]["type"], "tokens");
}

#[test]
fn retry_after_is_at_least_a_second() {
    let problem = throttled(0);
    assert_eq!(header(&Dialect::OpenAi.problem("r1", &problem), "retry-after"), Some("1"));
}

#[test]
fn sdks_do_not_retry_if_it_cannot_help() {
    let long = throttled(120_001);
    let just = throttled(120_000);
    for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
        let should_retry =
            |problem: &Problem| header(&dialect.problem("r1", problem), "x-should-retry").map(str::to_owned);
        assert_eq!(should_retry(&long).as_deref(), Some("false"));
        assert_eq!(should_retry(&just), None);
        assert_eq!(should_retry(&Problem::new(Kind::BudgetExhausted, "Spent.")).as_deref(), Some("false"));
        for kind in [Kind::Timeout, Kind::Model, Kind::Conflict] {
            assert_eq!(should_retry(&Problem::new(kind, "No.")).as_deref(), Some("false"));
        }
        assert_eq!(should_retry(&Problem::new(Kind::Unavailable, "Down.")), None);
    }
}

#[test]
fn aws_sdks_get_only_waits_that_they_can_honour() {
    let retry_after = |retry_after_ms| {
        let problem = throttled(retry_after_ms);
        header(&Dialect::Bedrock.problem("r1", &problem), "x-amz-retry-after").map(str::to_owned)
    };
    assert_eq!(retry_after(10_000).as_deref(), Some("10000"));
    assert_eq!(retry_after(10_001), None);
}
