//! Administration commands against a registry on the wire: from their arguments to their output.

use std::path::PathBuf;

use clap::Parser;
use spillway::{
    app::{self, App, Clients, Endpoints},
    config::{BedrockEndpoints, Config},
    store::tables,
    telemetry::Telemetry,
    tenant::ApiKey,
    units::{Millis, UnixMs},
};
use spillway_command::admin::{self, Admin, Change};
use spillway_stand_ins::dynamodb;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Admin,
}

struct Setup {
    app: App,
    folder: TempDir,
    _stop: DropGuard,
}

async fn setup() -> Setup {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    tokio::spawn(dynamodb::serve(listener, dynamodb::Options::default(), stop.clone()));
    let endpoints = Endpoints { dynamodb: url.clone(), sqs: url.clone(), s3: url.clone(), bedrock_runtime: url };
    let clients = Clients::new(&app::loopback().await, Some(&endpoints), BedrockEndpoints::default()).expect("clients");
    let config = Config { registry_cache_ttl: Millis::ZERO, ..Config::from_lookup(|_| None).expect("defaults") };
    tables::create_registry(&clients.dynamodb, &config.registry_table).await.expect("a table");
    let app = App::new(&config, clients, Telemetry::off());
    Setup { app, folder: tempfile::tempdir().expect("a folder"), _stop: stop.drop_guard() }
}

impl Setup {
    /// Runs a command. Returns its output and its changes.
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<(String, Vec<Change>)> {
        let cli = Cli::try_parse_from(["spillway"].iter().chain(arguments))?;
        let mut out = Vec::new();
        let changes = admin::execute(cli.command, &self.app, NOW, &mut out).await?;
        Ok((String::from_utf8(out)?, changes))
    }

    async fn printed(&self, arguments: &[&str]) -> String {
        self.run(arguments).await.expect("done").0
    }

    async fn refused(&self, arguments: &[&str]) -> String {
        format!("{:#}", self.run(arguments).await.expect_err("refused"))
    }

    fn file(&self, text: &str) -> String {
        let file: PathBuf = self.folder.path().join(format!("{}.toml", uuid()));
        std::fs::write(&file, text).expect("written");
        file.to_str().expect("UTF-8").to_owned()
    }
}

fn uuid() -> String {
    ApiKey::generate().expect("random bytes").id().to_owned()
}

const FILE: &str = r#"
[[tenants]]
name = "acme"
models = ["claude"]
[tenants.limits]
requests_per_minute = 60
tokens_per_minute = 10_000

[[tenants]]
name = "other"
class = "batch"

[[models]]
name = "claude"
aliases = ["anthropic.claude"]
[[models.ladder]]
name = "on-demand"
kind = "on_demand"
model_id = "eu.anthropic.claude"
prices = { input = 0.25, output = 1.25 }
[[models.ladder]]
name = "pt"
kind = "provisioned"
model_id = "arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/abc"
limits = { in_flight = 10 }

[simulator]
seed = 7
"#;

#[tokio::test]
async fn tenants_and_models_of_a_file_are_applied_separately_and_report_their_changes() {
    let setup = setup().await;
    let file = setup.file(FILE);
    let (printed, changes) = setup.run(&["tenants", "apply", &file]).await.expect("applied");
    assert_eq!(printed, "created tenant acme (version 1)\ncreated tenant other (version 1)\n");
    assert_eq!(changes.len(), 2);
    assert_eq!(setup.printed(&["models", "list"]).await, "MODEL  VERSION  LADDER\n");

    let (printed, changes) = setup.run(&["models", "apply", &file]).await.expect("applied");
    assert_eq!(printed, "created model claude (version 1)\n");
    assert!(matches!(&changes[..], [Change::Model { model, .. }] if model.version == 1 && model.ladder.len() == 2));

    let changed = setup.file(&FILE.replace("10_000", "20_000"));
    let (printed, changes) = setup.run(&["tenants", "apply", &changed]).await.expect("applied");
    assert_eq!(printed, "updated tenant acme (version 2)\nunchanged tenant other (version 1)\n");
    assert!(matches!(&changes[..], [Change::Tenant { tenant, .. }] if tenant.name == "acme" && tenant.version == 2));
}

#[tokio::test]
async fn lists_show_every_entry() {
    let setup = setup().await;
    let file = setup.file(FILE);
    setup.printed(&["tenants", "apply", &file]).await;
    setup.printed(&["models", "apply", &file]).await;
    let expected = "TENANT  VERSION  CLASS     LIMITS\n\
                    acme    1        standard  60 requests/min, 10000 tokens/min\n\
                    other   1        batch     none\n";
    assert_eq!(setup.printed(&["tenants", "list"]).await, expected);
    let expected = "MODEL   VERSION  LADDER\n\
                    claude  1        pt (provisioned), on-demand (on-demand)\n";
    assert_eq!(setup.printed(&["models", "list"]).await, expected);
}

#[tokio::test]
async fn a_shown_entry_can_be_applied_and_changes_nothing() {
    let setup = setup().await;
    let file = setup.file(FILE);
    setup.printed(&["tenants", "apply", &file]).await;
    setup.printed(&["models", "apply", &file]).await;
    let tenant = setup.file(&setup.printed(&["tenants", "show", "acme"]).await);
    assert_eq!(setup.printed(&["tenants", "apply", &tenant]).await, "unchanged tenant acme (version 1)\n");
    let model = setup.file(&setup.printed(&["models", "show", "eu.anthropic.claude"]).await);
    assert_eq!(setup.printed(&["models", "apply", &model]).await, "unchanged model claude (version 1)\n");
}

#[tokio::test]
async fn a_file_with_one_error_changes_nothing() {
    let setup = setup().await;
    let file = setup.file(&FILE.replace("class = \"batch\"", "hold_ms = 60_000"));
    let message = setup.refused(&["tenants", "apply", &file]).await;
    assert!(message.contains("is not valid; nothing was changed"), "{message}");
    assert!(message.contains(r#"line 9: tenant "other": hold_ms: 60000 must be 0 to 50000"#), "{message}");
    assert_eq!(setup.printed(&["tenants", "list"]).await, "TENANT  VERSION  CLASS  LIMITS\n");
    assert!(setup.refused(&["tenants", "apply", "/no/such/file"]).await.contains("cannot read /no/such/file"));
}

#[tokio::test]
async fn a_second_model_cannot_take_the_id_of_an_existing_model() {
    let setup = setup().await;
    setup.printed(&["models", "apply", &setup.file(FILE)]).await;
    let second = r#"
        [[models]]
        name = "second"
        ladder = [{ name = "a", kind = "on_demand", model_id = "eu.anthropic.claude" }]
    "#;
    let message = setup.refused(&["models", "apply", &setup.file(second)]).await;
    assert!(message.contains(r#""eu.anthropic.claude" means model "claude" and model "second""#), "{message}");
    let moved = FILE.replace("eu.anthropic.claude", "us.anthropic.claude");
    setup.printed(&["models", "apply", &setup.file(&moved)]).await;
    setup.printed(&["models", "apply", &setup.file(second)]).await;
}

#[tokio::test]
async fn a_tenant_may_name_a_model_that_does_not_exist_yet_and_gets_a_warning() {
    let setup = setup().await;
    let file = setup.file("[[tenants]]\nname = \"acme\"\nmodels = [\"cluade\"]\n");
    let expected = "warning: tenant acme may call model cluade, which does not exist yet\n\
                    created tenant acme (version 1)\n";
    assert_eq!(setup.printed(&["tenants", "apply", &file]).await, expected);
}

#[tokio::test]
async fn a_key_is_shown_once_and_works_until_it_is_revoked() {
    let setup = setup().await;
    setup.printed(&["tenants", "apply", &setup.file(FILE)]).await;
    let printed = setup.printed(&["keys", "create", "acme"]).await;
    let key = ApiKey::parse(printed.trim_end()).expect("a key, alone on its line");
    assert_eq!(setup.app.registry.authenticate(&key).await.expect("read").expect("known").name, "acme");

    let listed = setup.printed(&["keys", "list", "acme"]).await;
    assert_eq!(listed, format!("KEY ID        EXPIRES\n{}  never\n", key.id()));
    assert_eq!(setup.printed(&["keys", "revoke", key.id()]).await, format!("revoked key {}\n", key.id()));
    assert!(setup.app.registry.authenticate(&key).await.expect("read").is_none());
    assert!(setup.refused(&["keys", "revoke", key.id()]).await.contains("there is no key"));
    assert!(setup.refused(&["keys", "create", "absent"]).await.contains("there is no tenant absent"));
}

#[tokio::test]
async fn a_key_may_expire_and_a_whole_key_may_be_revoked() {
    let setup = setup().await;
    setup.printed(&["tenants", "apply", &setup.file(FILE)]).await;
    let whole = setup.printed(&["keys", "create", "acme", "--expires-in", "30d"]).await;
    let key = ApiKey::parse(whole.trim_end()).expect("a key");
    let listed = setup.printed(&["keys", "list", "acme"]).await;
    assert_eq!(listed, format!("KEY ID        EXPIRES\n{}  2027-02-14T08:00:00Z\n", key.id()));
    assert_eq!(setup.printed(&["keys", "revoke", whole.trim_end()]).await, format!("revoked key {}\n", key.id()));
    let message = setup.refused(&["keys", "create", "acme", "--expires-in", "soon"]).await;
    assert!(message.contains("such as 90d"), "{message}");
}

#[tokio::test]
async fn a_role_calls_as_a_tenant_until_it_is_revoked() {
    let setup = setup().await;
    setup.printed(&["tenants", "apply", &setup.file(FILE)]).await;
    let (role, session) = ("arn:aws:iam::123456789012:role/team/App", "arn:aws:sts::123456789012:assumed-role/App/s");
    let known_as = "arn:aws:iam::123456789012:role/App";
    let tenant =
        async || setup.app.registry.tenant_of_caller(known_as).await.expect("read").map(|tenant| tenant.name.clone());
    assert_eq!(tenant().await, None);

    let printed = setup.printed(&["callers", "allow", role, "--tenant", "acme"]).await;
    assert_eq!(printed, format!("allowed caller {known_as} for tenant acme\n"));
    assert_eq!(tenant().await.as_deref(), Some("acme"));
    setup.printed(&["callers", "allow", session, "--tenant", "other"]).await;
    assert_eq!(tenant().await.as_deref(), Some("other"), "the same caller, allowed for another tenant");
    setup.printed(&["callers", "allow", "AKIAIOSFODNN7EXAMPLE", "--tenant", "acme"]).await;
    let expected = "CALLER                              TENANT\n\
                    AKIAIOSFODNN7EXAMPLE                acme\n\
                    arn:aws:iam::123456789012:role/App  other\n";
    assert_eq!(setup.printed(&["callers", "list"]).await, expected);

    let printed = setup.printed(&["callers", "revoke", session]).await;
    assert_eq!(printed, format!("revoked caller {known_as}\n"));
    assert_eq!(tenant().await, None);
    assert!(setup.refused(&["callers", "revoke", role]).await.contains("there is no caller arn:aws:iam"));
    assert!(
        setup.refused(&["callers", "allow", role, "--tenant", "absent"]).await.contains("there is no tenant absent")
    );
    assert!(setup.refused(&["callers", "allow", "two words", "--tenant", "acme"]).await.contains("must be the ARN"));
}

#[tokio::test]
async fn a_deleted_tenant_is_gone_with_its_keys_and_callers() {
    let setup = setup().await;
    let file = setup.file(FILE);
    setup.printed(&["tenants", "apply", &file]).await;
    setup.printed(&["models", "apply", &file]).await;
    let printed = setup.printed(&["keys", "create", "acme"]).await;
    let key = ApiKey::parse(printed.trim_end()).expect("a key");
    setup.printed(&["callers", "allow", "AKID", "--tenant", "acme"]).await;
    assert_eq!(
        setup.printed(&["tenants", "delete", "acme"]).await,
        "deleted tenant acme, its keys, its callers and its webhooks\n"
    );
    assert_eq!(setup.printed(&["models", "delete", "claude"]).await, "deleted model claude\n");
    assert!(setup.app.registry.authenticate(&key).await.expect("read").is_none());
    assert_eq!(setup.printed(&["keys", "list", "acme"]).await, "KEY ID  EXPIRES\n");
    assert_eq!(setup.printed(&["callers", "list"]).await, "CALLER  TENANT\n");
    for missing in [["tenants", "delete", "acme"], ["models", "delete", "claude"], ["tenants", "show", "acme"]] {
        assert!(setup.refused(&missing).await.contains("there is no "), "{missing:?}");
    }
}

#[tokio::test]
async fn a_file_can_be_checked_without_a_registry() {
    let setup = setup().await;
    let file = setup.file(FILE);
    let printed = setup.printed(&["config", "check", &file]).await;
    assert_eq!(printed, format!("{file} is valid (tenants: 2, models: 1)\n"));
    let message = setup.refused(&["config", "check", &setup.file("[[tenants]]\nnme = \"acme\"\n")]).await;
    assert!(message.contains("unknown field `nme`") && message.contains("line 2"), "{message}");
}
