//! With a data directory, every acknowledged change survives, even `kill -9`.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use aws_sdk_sqs::types::{MessageSystemAttributeName as System, QueueAttributeName as Name};
use spillway_stand_ins::sqs::Options;

use crate::support::{Sqs, bodies, client, handle, soon, system};

const DIRECTORY: &str = "SQS_STAND_IN_TEST_DIRECTORY";

async fn start(directory: &Path) -> Sqs {
    Sqs::start_with(Options { data: Some(directory.to_owned()), ..Options::default() }).await
}

#[tokio::test]
async fn queues_messages_receipts_and_move_tasks_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let sqs = start(directory.path()).await;
    let (jobs, dead) = sqs.queue_with_dead_letters("jobs", 3).await;
    sqs.client.tag_queue().queue_url(&jobs).tags("team", "a").send().await.expect("tagged");
    for body in ["held", "visible"] {
        sqs.send_in_group(&jobs, body, "tenant-7").await;
    }
    let delayed = sqs.client.send_message().queue_url(&jobs).message_body("delayed").delay_seconds(900);
    delayed.send().await.expect("sent");
    let held = sqs.receive_up_to(&jobs, 1).await.remove(0);
    sqs.send(&dead, "stray").await;
    let arn = sqs.attribute(&dead, Name::QueueArn).await;
    sqs.client.start_message_move_task().source_arn(&arn).send().await.expect("started");
    assert_eq!(sqs.counts(&jobs).await, ("1".to_owned(), "1".to_owned(), "1".to_owned()));
    sqs.stop().await;

    let sqs = start(directory.path()).await;
    let jobs = sqs.client.get_queue_url().queue_name("jobs").send().await.expect("found").queue_url.expect("a URL");
    assert_eq!(sqs.counts(&jobs).await, ("1".to_owned(), "1".to_owned(), "1".to_owned()));
    assert!(sqs.attribute(&jobs, Name::RedrivePolicy).await.contains("jobs-dead"));
    let tags = sqs.client.list_queue_tags().queue_url(&jobs).send().await.expect("tags").tags;
    assert_eq!(tags.map(|tags| tags.len()), Some(1));
    let tasks = sqs.client.list_message_move_tasks().source_arn(&arn).send().await.expect("listed");
    assert_eq!(tasks.results()[0].status(), Some("FAILED"));

    let visible = sqs.receive(&jobs).await.remove(0);
    assert_eq!((visible.body(), system(&visible, System::MessageGroupId)), (Some("visible"), Some("tenant-7")));
    sqs.client.delete_message().queue_url(&jobs).receipt_handle(handle(&held)).send().await.expect("deleted");
    sqs.advance_s(900);
    let mut remaining = sqs.receive(&jobs).await;
    remaining.sort_by_key(|message| message.body.clone());
    assert_eq!(bodies(&remaining), ["delayed", "visible"]);
    assert_eq!(system(&remaining[1], System::ApproximateReceiveCount), Some("2"));
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let sqs = start(directory.path()).await;
    sqs.queue("jobs", &[]).await;
    let second = start(directory.path()).await;
    let error = soon(second.server).await.expect("no panic").expect_err("in use");
    assert!(format!("{error:#}").contains("locked"), "{error:#}");
}

/// The process that the next test kills. It serves only if the environment names a directory.
#[tokio::test]
async fn serve_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let sqs = start(&PathBuf::from(directory)).await;
    println!("\nlistening {}", sqs.endpoint);
    sqs.server.await.expect("no panic").expect("serves until it is killed");
}

fn spawn(directory: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "durability::serve_until_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawned");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let endpoint = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ").map(str::to_owned));
    (child, endpoint.expect("it listens"))
}

#[tokio::test]
async fn acknowledged_changes_survive_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut sent, mut deleting, mut deleted) = (HashSet::new(), HashSet::new(), HashSet::new());
    for round in 0..3_u32 {
        let (mut child, endpoint) = spawn(directory.path());
        let client = client(&endpoint);
        let queue = client.create_queue().queue_name("jobs").send().await.expect("created").queue_url.expect("a URL");
        let work = async {
            for index in 0.. {
                let body = format!("{round}-{index}");
                let request = client.send_message().queue_url(&queue).message_body(&body);
                if request.message_group_id(format!("group-{}", index % 3)).send().await.is_err() {
                    return;
                }
                sent.insert(body);
                if index % 2 == 0 {
                    continue;
                }
                let Ok(received) = client.receive_message().queue_url(&queue).send().await else { return };
                for message in received.messages() {
                    let body = message.body().expect("a body").to_owned();
                    assert!(!deleted.contains(&body), "{body} reappeared");
                    deleting.insert(body.clone());
                    let request = client.delete_message().queue_url(&queue).receipt_handle(handle(message));
                    if request.send().await.is_err() {
                        return;
                    }
                    deleted.insert(body);
                }
            }
        };
        // The kill can hit any moment of the requests in flight.
        let killed = tokio::time::sleep(std::time::Duration::from_millis(150 + 97 * u64::from(round)));
        tokio::select! {
            () = work => panic!("the server stopped before it was killed"),
            () = killed => {}
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    assert!(sent.len() > 20 && deleted.len() > 5, "{} sent, {} deleted", sent.len(), deleted.len());
    let sqs = start(directory.path()).await;
    let queue = format!("{}/000000000000/jobs", sqs.endpoint);
    sqs.advance_s(3_600);
    let mut found = HashSet::new();
    loop {
        let messages = sqs.receive(&queue).await;
        if messages.is_empty() {
            break;
        }
        found.extend(messages.into_iter().filter_map(|message| message.body));
    }
    let lost: Vec<_> = sent.iter().filter(|body| !deleting.contains(*body) && !found.contains(*body)).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    let reappeared: Vec<_> = deleted.intersection(&found).collect();
    assert!(reappeared.is_empty(), "reappeared {reappeared:?}");
}
