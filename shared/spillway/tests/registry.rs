//! The registry, against DynamoDB on the wire.

#[path = "support/dynamodb.rs"]
mod dynamodb;

use std::collections::HashSet;

use aws_sdk_dynamodb::types::AttributeValue;
use dynamodb::Dynamodb;
use futures_util::future::join_all;
use serde_json::json;
use spillway::{
    clock::Clock,
    pool::Model,
    store::{
        RegistryError, StoreError,
        registry::{Registry, Written},
        tables,
    },
    tenant::{ApiKey, CallerRecord, KeyRecord, Tenant},
    units::{Millis, UnixMs},
};
use spillway_stand_ins::faults::{Effect, Fault};

const CACHE_TTL: Millis = Millis::from_s(2);

struct Setup {
    dynamodb: Dynamodb,
    clock: Clock,
    /// The registry of the functions.
    registry: Registry,
    /// The registry of the command: another process, whose writes the cache of the functions does
    /// not notice.
    command: Registry,
}

async fn setup() -> Setup {
    let dynamodb = dynamodb::start().await;
    tables::create_registry(&dynamodb.client, &dynamodb.table).await.expect("a table");
    let clock = Clock::default();
    let open = || Registry::new(dynamodb.client.clone(), &dynamodb.table, CACHE_TTL, clock.clone());
    Setup { registry: open(), command: open(), clock, dynamodb }
}

impl Setup {
    async fn reads(&self) -> Option<u64> {
        let faults = self.dynamodb.faults.as_ref()?;
        Some(faults.stats().operations.get("GetItem").copied().unwrap_or_default())
    }

    async fn new_key(&self, tenant: &str, expires_at: Option<UnixMs>) -> ApiKey {
        let key = ApiKey::generate().expect("random bytes");
        self.command.put_key(&KeyRecord::new(&key, tenant, expires_at)).await.expect("written");
        key
    }

    async fn tenant_of(&self, key: &ApiKey) -> Option<String> {
        self.registry.authenticate(key).await.expect("read").map(|tenant| tenant.name.clone())
    }
}

fn tenant(name: &str, hold_ms: u64) -> Tenant {
    serde_json::from_value(json!({"name": name, "hold_ms": hold_ms})).expect("a tenant")
}

fn model(name: &str, pool_id: &str) -> Model {
    let ladder = json!([{"name": "pt", "kind": "provisioned", "model_id": pool_id, "prices": {"input": 0.25}}]);
    serde_json::from_value(json!({"name": name, "ladder": ladder})).expect("a model")
}

#[tokio::test]
async fn only_a_key_authenticates_its_tenant() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 7)).await.expect("written");
    let key = setup.new_key("acme", None).await;
    let found = setup.registry.authenticate(&key).await.expect("read").expect("known");
    assert_eq!((found.name.as_str(), found.hold, found.version), ("acme", Millis::from_ms(7), 1));

    let another_key = ApiKey::generate().expect("random bytes").expose();
    let secret = another_key.rsplit('-').next().expect("a secret");
    let wrong_secret = ApiKey::parse(&format!("sk-spill-{}-{secret}", key.id())).expect("a key");
    assert_eq!(setup.tenant_of(&wrong_secret).await, None);
    assert_eq!(setup.tenant_of(&ApiKey::parse(&another_key).expect("a key")).await, None);
    let without_tenant = setup.new_key("no-such-tenant", None).await;
    assert_eq!(setup.tenant_of(&without_tenant).await, None);
}

#[tokio::test]
async fn a_key_expires_even_while_it_is_cached() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 0)).await.expect("written");
    let key = setup.new_key("acme", Some(setup.clock.now() + Millis::from_s(1_500))).await;
    assert_eq!(setup.tenant_of(&key).await.as_deref(), Some("acme"));
    setup.clock.advance(Millis::from_ms(1_499_000));
    assert_eq!(setup.tenant_of(&key).await.as_deref(), Some("acme"));
    setup.clock.advance(Millis::from_ms(1_000));
    assert_eq!(setup.tenant_of(&key).await, None);
}

#[tokio::test]
async fn a_change_takes_effect_when_the_cache_expires() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 1)).await.expect("written");
    let key = setup.new_key("acme", None).await;
    assert_eq!(setup.tenant_of(&key).await.as_deref(), Some("acme"));
    setup.command.put_tenant(&tenant("acme", 2)).await.expect("written");
    setup.clock.advance(CACHE_TTL);
    let changed = setup.registry.tenant("acme").await.expect("read").expect("known");
    assert_eq!((changed.hold, changed.version), (Millis::from_ms(2), 2));

    assert!(setup.command.revoke_key(key.id()).await.expect("written"));
    assert!(!setup.command.revoke_key(key.id()).await.expect("written"));
    setup.clock.advance(CACHE_TTL);
    assert_eq!(setup.tenant_of(&key).await, None);
}

#[tokio::test]
async fn a_caller_has_its_tenant_until_the_cache_expires_and_none_without_the_tenant() {
    let setup = setup().await;
    let tenant_of =
        async |id: &str| setup.registry.tenant_of_caller(id).await.expect("read").map(|tenant| tenant.name.clone());
    setup.command.put_tenant(&tenant("acme", 0)).await.expect("written");
    for (id, tenant) in [("one", "acme"), ("another", "no-such-tenant")] {
        setup.command.put_caller(&CallerRecord { id: id.into(), tenant: tenant.into() }).await.expect("written");
    }
    assert_eq!(tenant_of("one").await.as_deref(), Some("acme"));
    assert_eq!((tenant_of("another").await, tenant_of("an unknown one").await), (None, None));
    let reads = setup.reads().await;
    assert_eq!((tenant_of("one").await.as_deref(), tenant_of("an unknown one").await), (Some("acme"), None));
    assert_eq!(setup.reads().await, reads, "known and unknown callers are kept");

    assert!(setup.command.revoke_caller("one").await.expect("written"));
    assert!(!setup.command.revoke_caller("one").await.expect("written"));
    assert_eq!(tenant_of("one").await.as_deref(), Some("acme"), "kept for a moment");
    setup.clock.advance(CACHE_TTL);
    assert_eq!(tenant_of("one").await, None);
}

#[tokio::test]
async fn a_forgotten_entry_is_read_again_immediately() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 1)).await.expect("written");
    setup.command.put_model(&model("claude", "arn:1")).await.expect("written");
    assert_eq!(setup.registry.tenant("acme").await.expect("read").expect("known").version, 1);
    assert!(setup.registry.catalogue().await.expect("read").resolve("arn:1").is_some());

    setup.command.put_tenant(&tenant("acme", 2)).await.expect("written");
    setup.command.put_model(&model("claude", "arn:2")).await.expect("written");
    setup.registry.forget("acme");
    setup.registry.forget_models();
    assert_eq!(setup.registry.tenant("acme").await.expect("read").expect("known").version, 2);
    let catalogue = setup.registry.catalogue().await.expect("read");
    assert!(catalogue.resolve("arn:1").is_none());
    assert_eq!(catalogue.resolve("arn:2").expect("known").version, 2);
}

#[tokio::test]
async fn only_changes_increase_the_version() {
    let Setup { command, dynamodb: _dynamodb, .. } = setup().await;
    let put = async |hold_ms| command.put_tenant(&tenant("acme", hold_ms)).await.expect("written");
    assert_eq!(put(1).await, Written::Created { version: 1 });
    assert_eq!(put(1).await, Written::Unchanged { version: 1 });
    assert_eq!(put(2).await, Written::Updated { version: 2 });
    let with_its_version = Tenant { version: 77, ..tenant("acme", 2) };
    assert_eq!(command.put_tenant(&with_its_version).await, Ok(Written::Unchanged { version: 2 }));
    assert_eq!(command.put_model(&model("m", "arn:1")).await, Ok(Written::Created { version: 1 }));
    assert_eq!(command.put_model(&model("m", "arn:1")).await, Ok(Written::Unchanged { version: 1 }));
}

#[tokio::test]
async fn concurrent_writers_get_different_versions() {
    let Setup { command, dynamodb: _dynamodb, .. } = setup().await;
    let tenants: Vec<_> = (1..=6).map(|hold_ms| tenant("acme", hold_ms)).collect();
    let written = join_all(tenants.iter().map(|tenant| command.put_tenant(tenant))).await;
    let versions: HashSet<u64> = written
        .into_iter()
        .map(|written| match written.expect("written") {
            Written::Created { version } | Written::Updated { version } => version,
            Written::Unchanged { version } => panic!("the tenants differ, but {version} was unchanged"),
        })
        .collect();
    assert_eq!(versions, (1..=6).collect());
}

#[tokio::test]
async fn a_tenant_that_is_created_again_has_a_higher_version_and_no_old_keys() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 1)).await.expect("written");
    setup.command.put_tenant(&tenant("other", 1)).await.expect("written");
    let key = setup.new_key("acme", None).await;
    let kept = setup.new_key("other", None).await;
    assert!(setup.command.delete_tenant("acme").await.expect("written"));
    assert!(!setup.command.delete_tenant("acme").await.expect("written"));
    assert_eq!(setup.tenant_of(&key).await, None);
    assert_eq!(setup.command.tenants().await.expect("read").len(), 1);

    assert_eq!(setup.command.put_tenant(&tenant("acme", 1)).await, Ok(Written::Created { version: 3 }));
    setup.clock.advance(CACHE_TTL);
    assert_eq!(setup.tenant_of(&key).await, None);
    assert_eq!(setup.tenant_of(&kept).await.as_deref(), Some("other"));
    assert_eq!(setup.command.keys_of("acme").await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_malformed_model_does_not_affect_other_models() {
    let setup = setup().await;
    setup.command.put_model(&model("good", "arn:good")).await.expect("written");
    setup.command.put_model(&model("gone", "arn:gone")).await.expect("written");
    assert!(setup.command.delete_model("gone").await.expect("written"));
    let request = setup.dynamodb.client.put_item().table_name(&setup.dynamodb.table);
    let request = request.item("pk", AttributeValue::S("model".into())).item("sk", AttributeValue::S("bad".into()));
    let request = request.item("version", AttributeValue::N("1".into()));
    request.item("doc", AttributeValue::S(r#"{"name":"bad"}"#.into())).send().await.expect("written");
    let catalogue = setup.registry.catalogue().await.expect("read");
    assert_eq!(catalogue.models().map(|model| model.name.clone()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(catalogue.resolve("arn:good").expect("known").ladder[0].prices.input, 0.25);
}

#[tokio::test]
async fn a_catalogue_may_be_larger_than_one_page() {
    let setup = setup().await;
    // Eight models of 200 KB are more than the 1 MB of one response.
    let aliases: Vec<String> = (0..100).map(|alias| format!("{alias}-{}", "x".repeat(2_000))).collect();
    for number in 0..8 {
        let model = Model { aliases: aliases.clone(), ..model(&format!("m{number}"), "arn") };
        setup.command.put_model(&model).await.expect("written");
    }
    assert_eq!(setup.registry.catalogue().await.expect("read").models().count(), 8);
}

#[tokio::test]
async fn concurrent_requests_share_one_read() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 1)).await.expect("written");
    let key = setup.new_key("acme", None).await;
    let Some(before) = setup.reads().await else { return };
    let asks = (0..50).map(|_| {
        let (registry, key) = (setup.registry.clone(), key.clone());
        tokio::spawn(async move { registry.authenticate(&key).await })
    });
    for found in join_all(asks).await {
        assert_eq!(found.expect("no panic").expect("read").expect("known").name, "acme");
    }
    assert_eq!(setup.reads().await, Some(before + 2), "the key and the tenant");
}

#[tokio::test]
async fn an_unknown_key_costs_as_many_reads_as_a_wrong_secret() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 1)).await.expect("written");
    let known = setup.new_key("acme", None).await;
    let unknown = ApiKey::generate().expect("random bytes");
    let wrong = format!("sk-spill-{}-{}", known.id(), "00".repeat(32));
    let Some(before) = setup.reads().await else { return };
    for key in [unknown, ApiKey::parse(&wrong).expect("a key")] {
        for _ in 0..2 {
            assert_eq!(setup.tenant_of(&key).await, None);
        }
    }
    assert_eq!(setup.reads().await, Some(before + 2), "each is read once, then both are cached");
}

#[tokio::test]
async fn a_short_outage_of_the_store_affects_no_caller_and_a_long_one_every_caller() {
    let setup = setup().await;
    setup.command.put_tenant(&tenant("acme", 1)).await.expect("written");
    setup.command.put_model(&model("claude", "arn:1")).await.expect("written");
    let key = setup.new_key("acme", None).await;
    let Some(faults) = &setup.dynamodb.faults else { return };
    assert_eq!(setup.tenant_of(&key).await.as_deref(), Some("acme"));
    assert_eq!(setup.registry.catalogue().await.expect("read").models().count(), 1);

    faults.inject(Fault { operation: None, ..Fault::on("", Effect::Error500) });
    setup.clock.advance(Millis::from_ms(50_000));
    assert_eq!(setup.tenant_of(&key).await.as_deref(), Some("acme"));
    assert_eq!(setup.registry.catalogue().await.expect("stale").models().count(), 1);
    assert!(matches!(setup.registry.tenant("new").await, Err(RegistryError::Store(StoreError::Unavailable(_)))));
    setup.clock.advance(Millis::from_ms(10_000));
    assert!(matches!(setup.registry.authenticate(&key).await, Err(RegistryError::Store(StoreError::Unavailable(_)))));
    assert!(matches!(setup.registry.catalogue().await, Err(RegistryError::Store(StoreError::Unavailable(_)))));

    faults.clear();
    assert_eq!(setup.tenant_of(&key).await.as_deref(), Some("acme"));
}

#[tokio::test]
async fn a_write_whose_response_was_lost_is_made_once() {
    let setup = setup().await;
    let Some(faults) = &setup.dynamodb.faults else { return };
    for hold_ms in 1..=3 {
        faults.inject(Fault { times: Some(1), ..Fault::on("PutItem", Effect::CutAfter) });
        let written = setup.command.put_tenant(&tenant("acme", hold_ms)).await.expect("written");
        let expected = match hold_ms {
            1 => Written::Created { version: 1 },
            version => Written::Updated { version },
        };
        assert_eq!(written, expected);
    }
    assert_eq!(faults.stats().failed_conditions, 3, "each was repeated");
    faults.inject(Fault { times: Some(1), ..Fault::on("PutItem", Effect::CutAfter) });
    assert_eq!(setup.command.delete_tenant("acme").await, Ok(true));
}

#[tokio::test]
async fn a_missing_table_is_a_refused_request() {
    let dynamodb = dynamodb::start().await;
    let registry = Registry::new(dynamodb.client.clone(), &dynamodb.table, CACHE_TTL, Clock::default());
    match registry.tenant("acme").await {
        Err(RegistryError::Store(StoreError::Refused(why))) => {
            assert!(why.starts_with("ResourceNotFoundException"), "{why}")
        }
        result => panic!("{result:?}"),
    }
}
