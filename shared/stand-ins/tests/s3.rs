//! The stand-in for S3, asked by the AWS SDK.

use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use spillway_stand_ins::{Options, StandIns};

async fn start(data: Option<&Path>) -> (StandIns, Client) {
    let stand_ins =
        StandIns::start(Options { data: data.map(Path::to_owned), ..Options::default() }).await.expect("stand-ins");
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(stand_ins.s3_url())
        .force_path_style(true)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("any", "thing", None, None, "test"))
        .build();
    (stand_ins, Client::from_conf(config))
}

async fn get(client: &Client, key: &str) -> Option<Vec<u8>> {
    match client.get_object().bucket("bucket").key(key).send().await {
        Ok(found) => Some(found.body.collect().await.expect("a body").to_vec()),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => None,
        Err(error) => panic!("{error:?}"),
    }
}

async fn put(client: &Client, key: &str, body: Vec<u8>) {
    client.put_object().bucket("bucket").key(key).body(ByteStream::from(body)).send().await.expect("stored");
}

#[tokio::test]
async fn what_is_put_is_got_until_it_is_deleted() {
    let (stand_ins, client) = start(None).await;
    client.create_bucket().bucket("bucket").send().await.expect("a bucket");
    let large: Vec<u8> = (0..6 * 1024 * 1024_u32).map(|at| (at % 251) as u8).collect();
    put(&client, "tenant/id/request", large.clone()).await;
    assert_eq!(get(&client, "tenant/id/request").await, Some(large));
    put(&client, "tenant/id/request", b"later".to_vec()).await;
    assert_eq!(get(&client, "tenant/id/request").await, Some(b"later".to_vec()));
    client.delete_object().bucket("bucket").key("tenant/id/request").send().await.expect("deleted");
    assert_eq!(get(&client, "tenant/id/request").await, None);
    stand_ins.stop().await;
}

#[tokio::test]
async fn objects_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (stand_ins, client) = start(Some(directory.path())).await;
    client.create_bucket().bucket("bucket").send().await.expect("a bucket");
    put(&client, "kept", b"body".to_vec()).await;
    stand_ins.stop().await;
    let (stand_ins, client) = start(Some(directory.path())).await;
    assert_eq!(get(&client, "kept").await, Some(b"body".to_vec()));
    let again = client.create_bucket().bucket("bucket").send().await.expect_err("it is there");
    let again = again.as_service_error().expect("an error of S3");
    assert!(again.is_bucket_already_exists() || again.is_bucket_already_owned_by_you(), "{again:?}");
    stand_ins.stop().await;
}
