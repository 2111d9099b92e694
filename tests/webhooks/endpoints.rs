//! Endpoints: challenges, secrets and the command.

use clap::Parser;
use serde_json::json;
use spillway::dialect::Api;
use spillway_command::admin::{self, Admin};

use super::{WEBHOOK_QUEUE, run, start, until_delivered};
use crate::support::{Deployment, chat, receiver::status};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Admin,
}

/// Runs `spillway webhooks …`. Returns its output or its error.
async fn command(deployment: &Deployment, arguments: &[&str]) -> Result<String, String> {
    let cli = Cli::try_parse_from(["spillway", "webhooks"].iter().chain(arguments)).map_err(|e| e.to_string())?;
    let app = &deployment.world.app;
    let mut out = Vec::new();
    let result = admin::execute(cli.command, app, app.clock.now(), &mut out).await;
    let printed = String::from_utf8(out).expect("text");
    result.map(|_| printed).map_err(|error| format!("{error:#}"))
}

/// Returns the rest of the line in `printed` that starts with `name`.
fn line(printed: &str, name: &str) -> String {
    let line = printed.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {printed}")).trim().to_owned()
}
#[tokio::test]
async fn an_endpoint_gets_no_events_until_it_has_answered_a_challenge() {
    let (deployment, receiver) = start().await;
    receiver.will_answer([status(500)]);
    let printed = command(&deployment, &["add", "t", &receiver.url, "--event", "job.succeeded"]).await.expect("added");
    let (id, secret) = (line(&printed, "endpoint "), line(&printed, "secret "));
    assert!(printed.contains("not verified: it answered 500"), "{printed}");
    let row = |verified: &str| format!("{id}  {}  job.succeeded  {verified}", receiver.url);
    assert!(command(&deployment, &["list", "t"]).await.expect("listed").contains(&row("no")));
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    until_delivered(&deployment).await;
    let challenges = receiver.received();
    assert_eq!((challenges.len(), &challenges[0].json()["type"]), (1, &json!("endpoint.verification")));
    assert!(challenges[0].is_signed_with(&secret));

    assert_eq!(command(&deployment, &["verify", &id]).await.expect("verified"), format!("verified endpoint {id}\n"));
    let listed = command(&deployment, &["list", "t"]).await.expect("listed");
    assert!(listed.contains(&row("yes")) && !listed.contains(&secret), "{listed}");
    let job = run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    let request = receiver.first_requests(3).await.remove(2);
    assert_eq!(request.json()["data"]["id"], json!(job.id));
    assert_ne!(challenges[0].json()["data"]["challenge"], receiver.received()[1].json()["data"]["challenge"]);
}

#[tokio::test]
async fn during_a_rotation_both_secrets_sign() {
    let (deployment, receiver) = start().await;
    let printed = command(&deployment, &["add", "t", &receiver.url]).await.expect("added");
    assert!(printed.ends_with("verified\n"), "{printed}");
    let (id, old) = (line(&printed, "endpoint "), line(&printed, "secret "));
    let new = line(&command(&deployment, &["rotate", &id, "--keep-old-hours", "2"]).await.expect("rotated"), "secret ");
    assert_ne!(old, new);
    let next_event = async |count: usize| {
        run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
        receiver.first_requests(count).await.remove(count - 1)
    };
    let during_overlap = next_event(2).await;
    let signature = during_overlap.header("webhook-signature");
    assert!(during_overlap.is_signed_with(&old) && during_overlap.is_signed_with(&new), "{signature}");
    deployment.world.advance(2 * 3_600_000);
    let after_overlap = next_event(3).await;
    let signature = after_overlap.header("webhook-signature");
    assert!(!after_overlap.is_signed_with(&old) && after_overlap.is_signed_with(&new), "{signature}");

    let printed = command(&deployment, &["rotate", &id, "--keep-old-hours", "0"]).await.expect("rotated");
    let immediate = next_event(4).await;
    assert!(!immediate.is_signed_with(&new) && immediate.is_signed_with(&line(&printed, "secret ")));
}

#[tokio::test]
async fn a_removed_endpoint_gets_no_more_events() {
    let (deployment, receiver) = start().await;
    let endpoint = deployment.endpoint("t", &receiver.url, &[]).await;
    let id = endpoint.id.as_str();
    assert_eq!(command(&deployment, &["remove", id]).await.expect("removed"), format!("removed endpoint {id}\n"));
    run(&deployment, Api::ChatCompletions, &chat(5, 5)).await;
    assert_eq!((receiver.received().len(), deployment.messages_in(WEBHOOK_QUEUE).await), (0, 0));
    for arguments in [["remove", id], ["rotate", id], ["verify", id]] {
        assert_eq!(command(&deployment, &arguments).await, Err(format!("there is no endpoint {id}")));
    }
    let error = command(&deployment, &["add", "absent", &receiver.url]).await.expect_err("no tenant");
    assert!(error.contains("there is no tenant absent"), "{error}");
    let error = command(&deployment, &["add", "t", &receiver.url, "--event", "job.began"]).await.expect_err("unknown");
    assert!(error.contains("response.completed"), "{error}");
    deployment.endpoint("t", &receiver.url, &[]).await;
    deployment.world.app.registry.delete_tenant("t").await.expect("deleted");
    assert!(deployment.world.app.registry.endpoints("t").await.expect("read").is_empty());
}

#[tokio::test]
async fn a_tenant_may_have_ten_endpoints_and_no_more() {
    let (deployment, receiver) = start().await;
    for _ in 0..10 {
        deployment.endpoint("t", &receiver.url, &[]).await;
    }
    let error = command(&deployment, &["add", "t", &receiver.url]).await.expect_err("too many");
    assert_eq!(error, "tenant t already has 10 endpoints, the maximum");
}

#[tokio::test]
async fn an_endpoint_has_a_public_address_and_a_port_of_https() {
    let (deployment, _receiver) = start().await;
    for (url, reason) in [
        ("https://10.0.0.1/hook", "10.0.0.1 is not a public address"),
        ("https://169.254.169.254/", "169.254.169.254 is not a public address"),
        ("https://[fd00:ec2::254]/", "is not a public address"),
        ("http://example.com/", "must begin with https://"),
        ("https://example.com:22/", "its port is 22, but must be 443 or 8443"),
        ("https://8.8.8.8:6379/", "its port is 6379, but must be 443 or 8443"),
    ] {
        let error = command(&deployment, &["add", "t", url]).await.expect_err(url);
        assert!(error.starts_with("the URL cannot be used: ") && error.contains(reason), "{error}");
    }
    assert!(deployment.world.app.registry.endpoints("t").await.expect("read").is_empty());
}
