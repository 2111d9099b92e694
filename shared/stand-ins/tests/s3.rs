//! Tests of the S3 stand-in through the AWS SDK.

use std::{path::Path, time::Duration};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::put_object::PutObjectError,
    presigning::PresigningConfig,
    primitives::ByteStream,
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioExecutor;
use spillway_stand_ins::{
    Options, StandIns,
    faults::{Effect, Fault, Stats},
};

async fn start(data: Option<&Path>) -> (StandIns, Client) {
    let stand_ins =
        StandIns::start(Options { data: data.map(Path::to_owned), ..Options::default() }).await.expect("stand-ins");
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(stand_ins.s3_url())
        .force_path_style(true)
        .region(Region::new("us-east-1"))
        .retry_config(RetryConfig::disabled())
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
async fn an_object_can_be_read_until_it_is_deleted() {
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
    let error = client.create_bucket().bucket("bucket").send().await.expect_err("the bucket exists");
    let error = error.as_service_error().expect("an error of S3");
    assert!(error.is_bucket_already_exists() || error.is_bucket_already_owned_by_you(), "{error:?}");
    stand_ins.stop().await;
}

async fn put_under(effect: Effect) -> (SdkError<PutObjectError>, bool) {
    let (stand_ins, client) = start(None).await;
    client.create_bucket().bucket("bucket").send().await.expect("a bucket");
    stand_ins.s3_faults().inject(Fault { times: Some(1), ..Fault::on("PutObject", effect) });
    let put = client.put_object().bucket("bucket").key("a/b").body(ByteStream::from_static(b"body"));
    let error = put.send().await.expect_err("the fault must strike");
    let exists = get(&client, "a/b").await.is_some();
    stand_ins.stop().await;
    (error, exists)
}

#[tokio::test]
async fn a_refused_put_returns_the_error_of_s3_and_stores_nothing() {
    for (effect, status, code) in [(Effect::Throttle, 503, "SlowDown"), (Effect::Error500, 500, "InternalError")] {
        let (error, exists) = put_under(effect).await;
        assert_eq!(error.raw_response().expect("a response").status().as_u16(), status);
        assert_eq!((error.code(), exists), (Some(code), false));
    }
}

#[tokio::test]
async fn a_put_with_a_closed_connection_is_executed() {
    let (error, exists) = put_under(Effect::CutAfter).await;
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    assert!(exists);
}

async fn put_at(url: &str, body: &'static [u8]) -> StatusCode {
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = Request::put(url).body(Full::new(Bytes::from_static(body))).expect("a request");
    client.request(request).await.expect("a response").status()
}

#[tokio::test]
async fn an_object_can_be_put_at_a_presigned_url_as_it_was_signed() {
    let (stand_ins, client) = start(None).await;
    client.create_bucket().bucket("bucket").send().await.expect("a bucket");
    let presigned = async |key: &str, valid_for_s| {
        let config = PresigningConfig::expires_in(Duration::from_secs(valid_for_s)).expect("a configuration");
        let put = client.put_object().bucket("bucket").key(key).content_length(4).customize();
        let credentials = Credentials::new("same", "same", None, None, "test");
        let put = put.config_override(Config::builder().credentials_provider(credentials));
        put.presigned(config).await.expect("presigned").uri().to_owned()
    };
    let url = presigned("tenant/a", 60).await;
    assert_eq!(put_at(&url, b"body").await, StatusCode::OK);
    assert_eq!(get(&client, "tenant/a").await, Some(b"body".to_vec()));
    for (url, body) in [
        (url.replace("tenant/a", "tenant/b"), &b"body"[..]),
        (url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), b"body"),
        (url.clone(), b"larger"),
        (presigned("tenant/b", 0).await, b"body"),
    ] {
        assert_eq!(put_at(&url, body).await, StatusCode::FORBIDDEN, "{url}");
    }
    assert_eq!(get(&client, "tenant/b").await, None);
    stand_ins.stop().await;
}

async fn control(url: &str, method: &str, path: &str, body: &'static str) -> (StatusCode, Bytes) {
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder().method(method).uri(format!("{url}{path}"));
    let response = client.request(request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()).await.unwrap();
    (response.status(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn requests_are_counted_and_faults_are_injected_over_http() {
    let (stand_ins, client) = start(None).await;
    let url = stand_ins.s3_url();
    client.create_bucket().bucket("bucket").send().await.expect("a bucket");
    put(&client, "a/b", b"body".to_vec()).await;
    put(&client, "a/c", b"body".to_vec()).await;
    get(&client, "a/b").await;
    client.delete_object().bucket("bucket").key("a/b").send().await.expect("deleted");
    let (_, stats) = control(&url, "GET", "/_sim/stats", "").await;
    let operations = [("CreateBucket", 1), ("PutObject", 2), ("GetObject", 1), ("DeleteObject", 1)];
    let operations = operations.map(|(operation, count)| (operation.to_owned(), count)).into();
    assert_eq!(serde_json::from_slice::<Stats>(&stats).unwrap(), Stats { operations, ..Stats::default() });

    let fault = r#"{"operation":"GetObject","effect":"throttle"}"#;
    assert_eq!(control(&url, "POST", "/_sim/faults", fault).await.0, StatusCode::NO_CONTENT);
    client.get_object().bucket("bucket").key("a/c").send().await.expect_err("the fault must strike");
    assert_eq!(control(&url, "DELETE", "/_sim/stats", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(stand_ins.s3_faults().stats(), Stats::default());
    assert_eq!(control(&url, "DELETE", "/_sim/faults", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(get(&client, "a/c").await, Some(b"body".to_vec()));
    stand_ins.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn only_their_owner_can_read_objects() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("a directory");
    // An existing directory that all users can read.
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("set");
    let (stand_ins, _) = start(Some(directory.path())).await;
    let objects = std::fs::metadata(directory.path().join("s3")).expect("the directory exists");
    assert_eq!(objects.permissions().mode() & 0o777, 0o700);
    stand_ins.stop().await;
}
