//! Tests of models and pools.

use super::*;

fn model(json: serde_json::Value) -> Model {
    serde_json::from_value(json).expect("a model")
}

#[test]
fn a_model_needs_a_name_and_a_pool() {
    let least = model(serde_json::json!({
        "name": "claude:sonnet-4.5",
        "ladder": [{"name": "pt", "kind": "provisioned",
            "model_id": "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc"}],
    }));
    assert_eq!(least.check(), Vec::<String>::new());
    assert_eq!(model(serde_json::json!({"name": "m", "ladder": []})).check(), ["ladder: must have at least one pool"]);
}

#[test]
fn all_errors_are_reported_together() {
    let wrong = model(serde_json::json!({
        "name": "",
        "aliases": ["has space"],
        "max_output_tokens": 0,
        "timeout_ms": 999,
        "ladder": [
            {"name": "a", "kind": "provisioned", "model_id": "m", "burndown": 0, "service_tier": "fast"},
            {"name": "a", "kind": "on_demand", "model_id": "", "region": "eu west",
                "limits": {"in_flight": 0}, "prices": {"input": -0.5}},
        ],
    }))
    .check();
    let expected = [
        r#"name: "" must be 1 to 128 of a-z A-Z 0-9 . _ : -"#,
        r#"aliases: "has space" must be 1 to 2048 of a-z A-Z 0-9 . _ : / -"#,
        "max_output_tokens: 0 must be 1 to 1000000000000",
        "timeout_ms: 999 must be 1000 to 900000",
        r#"ladder[0].service_tier: "fast" must be one of default, flex, priority, reserved"#,
        "ladder[0].burndown: 0 must be 1 to 100",
        r#"ladder[1].model_id: "" must be 1 to 2048 of a-z A-Z 0-9 . _ : / -"#,
        r#"ladder[1].region: "eu west" must be 1 to 32 of a-z A-Z 0-9 -"#,
        "ladder[1].limits.in_flight: 0 admits nothing; leave it out for no limit",
        "ladder[1].prices.input: -0.5 must be 0 to 1000000",
        r#"ladder[1].name: "a" is the name of an earlier pool too"#,
    ];
    assert_eq!(wrong, expected);
}

#[test]
fn the_tokenizer_is_configured_or_follows_from_the_pools() {
    let tokenizer = |fields: serde_json::Value, ids: &[&str]| {
        let pool = |id| serde_json::json!({"name": id, "kind": "on_demand", "model_id": id});
        let mut json = serde_json::json!({"name": "m", "ladder": ids.iter().map(pool).collect::<Vec<_>>()});
        json.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        model(json).tokenizer()
    };
    let provisioned = "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc";
    let (opus_4_6, opus_4_7, nova) =
        ("anthropic.claude-opus-4-6-v1", "us.anthropic.claude-opus-4-7", "amazon.nova-lite-v1:0");
    let nothing = serde_json::json!({});
    assert_eq!(tokenizer(serde_json::json!({"tokenizer": "qwen3"}), &[nova]), Tokenizer::Qwen3);
    assert_eq!(tokenizer(nothing.clone(), &[provisioned, nova]), Tokenizer::Amazon);
    assert_eq!(tokenizer(nothing.clone(), &[opus_4_6, opus_4_7]), Tokenizer::Claude47);
    assert_eq!(tokenizer(nothing.clone(), &[opus_4_7, nova]), Tokenizer::Unknown);
    assert_eq!(tokenizer(nothing, &[provisioned]), Tokenizer::Unknown);
}

#[test]
fn work_that_can_wait_takes_the_cheapest_pool_first() {
    let pool = |name: &str, kind: &str, tier: Option<&str>, price: f64| {
        serde_json::json!({"name": name, "kind": kind, "model_id": "m", "service_tier": tier,
            "prices": {"input": price, "output": 5.0 * price}})
    };
    let names = |pools: &[serde_json::Value]| -> Vec<String> {
        let model = model(serde_json::json!({"name": "m", "ladder": pools}));
        model.rungs_by_price().into_iter().map(|pool| pool.name.clone()).collect()
    };
    let (default, profile) = (pool("default", "on_demand", None, 1.0), pool("profile", "on_demand", None, 1.1));
    let (flex, paid) = (pool("flex", "on_demand", Some("flex"), 0.5), pool("paid", "provisioned", None, 0.0));
    let listed = [profile, default.clone(), flex.clone(), paid.clone(), pool("equal", "on_demand", None, 1.0)];
    assert_eq!(names(&listed), ["paid", "flex", "default", "equal", "profile"]);
    let unpriced = [
        pool("urgent", "on_demand", Some("priority"), 0.0),
        default,
        pool("free", "on_demand", None, 0.0),
        pool("patient", "on_demand", Some("flex"), 0.0),
        paid,
    ];
    assert_eq!(names(&unpriced), ["paid", "patient", "default", "free", "urgent"]);
}

#[test]
fn a_price_that_is_not_a_number_is_refused() {
    for price in [f64::NAN, f64::INFINITY] {
        let mut model = model(serde_json::json!({
            "name": "m", "ladder": [{"name": "a", "kind": "on_demand", "model_id": "m"}],
        }));
        model.ladder[0].prices.cache_write = price;
        assert_eq!(model.check().len(), 1, "{price}");
    }
}

fn ladder(pools: &[serde_json::Value]) -> Model {
    let ladder = (0..).zip(pools).map(|(number, fields): (usize, _)| {
        let mut pool = serde_json::json!({"name": number.to_string(), "kind": "on_demand", "model_id": "m"});
        pool.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        pool
    });
    let ladder: Vec<serde_json::Value> = ladder.collect();
    model(serde_json::json!({"name": "m", "ladder": ladder}))
}

#[test]
fn region_and_scope_agree_with_the_model_id() {
    let profile = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc";
    let wrong = ladder(&[
        serde_json::json!({"model_id": profile, "region": "eu-central-1", "scope": "eu"}),
        serde_json::json!({"model_id": profile, "region": "eu-west-1", "scope": "global"}),
        serde_json::json!({"model_id": "eu.amazon.nova-lite-v1:0", "scope": "global"}),
        serde_json::json!({"model_id": "amazon.nova-lite-v1:0", "scope": "in_region"}),
    ]);
    let expected = [
        r#"ladder[0].region: "eu-central-1" must be "eu-west-1", the region in the ARN of model_id"#,
        "ladder[2].scope: global must be eu, the scope of model_id; leave it out",
    ];
    assert_eq!(wrong.check(), expected);
}

#[test]
fn a_pool_of_another_model_must_be_a_substitute() {
    let pools = |substitute: bool| {
        ladder(&[
            serde_json::json!({"model_id": "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc"}),
            serde_json::json!({"model_id": "eu.anthropic.claude-haiku-4-5-20251001-v1:0", "substitute": true}),
            serde_json::json!({"model_id": "anthropic.claude-3-haiku-20240307-v1:0:48k"}),
            serde_json::json!({"model_id": "eu.anthropic.claude-3-haiku-20240307-v1:0"}),
            serde_json::json!({"model_id": "anthropic.claude-3-5-sonnet-20240620-v1:0", "substitute": substitute}),
            serde_json::json!({"model_id": "unknown"}),
        ])
    };
    assert_eq!(pools(true).check(), Vec::<String>::new());
    let expected = "ladder[4].model_id: anthropic.claude-3-5-sonnet-20240620-v1:0 is another model than \
                    anthropic.claude-3-haiku-20240307-v1:0; set substitute = true if it may answer in its place";
    assert_eq!(pools(false).check(), [expected]);
    let alone = ladder(&[serde_json::json!({"substitute": true})]);
    assert_eq!(alone.check(), ["ladder: at least one pool must not be a substitute"]);
    let vectors = ladder(&[
        serde_json::json!({"model_id": "amazon.titan-embed-text-v2:0"}),
        serde_json::json!({"model_id": "cohere.embed-v4:0", "substitute": true}),
    ]);
    assert_eq!(vectors.check(), ["ladder[1].substitute: vectors of different models cannot be compared"]);
}

#[test]
fn the_pools_of_a_rung_are_listed_together_in_ascending_order() {
    let rungs = |rungs: &[Option<u16>]| {
        let pools: Vec<_> = rungs.iter().map(|rung| serde_json::json!({"rung": rung})).collect();
        ladder(&pools).check()
    };
    assert_eq!(rungs(&[Some(1), Some(1), None, Some(2), None]), Vec::<String>::new());
    assert_eq!(rungs(&[Some(2), Some(1)]), ["ladder[1].rung: 1 is listed after 2; list the rungs in their order"]);
    assert_eq!(rungs(&[Some(1), None, Some(1)]), ["ladder[2].rung: list the pools of rung 1 one after the other"]);
    let mixed = ladder(&[serde_json::json!({"rung": 1}), serde_json::json!({"rung": 1, "substitute": true})]);
    assert_eq!(mixed.check(), ["ladder[1].rung: a substitute cannot share rung 1 with the model itself"]);
    let kinds = ladder(&[
        serde_json::json!({"rung": 1, "kind": "provisioned"}),
        serde_json::json!({}),
        serde_json::json!({"rung": 1, "kind": "provisioned"}),
    ]);
    assert_eq!(kinds.check(), Vec::<String>::new());
}

#[test]
fn a_substitute_never_lowers_the_estimate_and_does_not_change_the_format() {
    let with = |fields: serde_json::Value, substitute: &str| {
        let mut model = ladder(&[
            serde_json::json!({"model_id": "anthropic.claude-opus-4-6-v1"}),
            serde_json::json!({"model_id": substitute, "substitute": true}),
        ]);
        model.tokenizer = serde_json::from_value(fields).expect("a tokenizer");
        (model.tokenizer(), model.format())
    };
    let (none, claude) = (serde_json::Value::Null, Some(Format::Messages));
    assert_eq!(with(none.clone(), "anthropic.claude-haiku-4-5-20251001-v1:0"), (Tokenizer::Claude3, claude));
    assert_eq!(with(none.clone(), "anthropic.claude-opus-4-8"), (Tokenizer::Claude47, claude));
    assert_eq!(with(none.clone(), "amazon.nova-lite-v1:0"), (Tokenizer::Unknown, claude));
    assert_eq!(with(none, "arn:aws:bedrock:eu-west-1:1:provisioned-model/abc"), (Tokenizer::Unknown, claude));
    assert_eq!(with(serde_json::json!("claude3"), "anthropic.claude-opus-4-8"), (Tokenizer::Claude47, claude));
}

#[test]
fn the_name_of_a_substitute_has_no_account_number() {
    let name = |model_id: &str, substitute: bool| {
        let mut model = ladder(&[serde_json::json!({"model_id": model_id, "substitute": substitute})]);
        model.ladder.remove(0).substitute_name().map(str::to_owned)
    };
    let arn = |resource: &str| format!("arn:aws:bedrock:eu-west-1:123456789012:{resource}");
    let nova = "eu.amazon.nova-lite-v1:0";
    assert_eq!(name(nova, true).as_deref(), Some(nova));
    assert_eq!(name(nova, false), None);
    assert_eq!(name(&arn(&format!("inference-profile/{nova}")), true).as_deref(), Some(nova));
    assert_eq!(name(&arn("provisioned-model/abc"), true).as_deref(), Some("0"), "the name of the pool");
}
