//! Embeddings: Titan and Cohere.

use aws_sdk_bedrockruntime::primitives::Blob;
use serde_json::{Value, json};
use spillway_stand_ins::bedrock::tokens;

use crate::support::{Bedrock, invoke, refused, user};

const TITAN: &str = "amazon.titan-embed-text-v2:0";
const COHERE_V3: &str = "cohere.embed-english-v3";
const COHERE_V4: &str = "eu.cohere.embed-v4:0";

fn length(vector: &Value) -> f64 {
    vector.as_array().unwrap().iter().map(|value| value.as_f64().unwrap().powi(2)).sum::<f64>().sqrt()
}

fn dimensions(vector: &Value) -> usize {
    vector.as_array().unwrap().len()
}

#[tokio::test]
async fn titan_embeds_one_text_and_counts_its_tokens() {
    let bedrock = Bedrock::start().await;
    let answer = invoke(&bedrock, TITAN, &json!({ "inputText": "hello there" })).await;
    assert_eq!((dimensions(&answer["embedding"]), &answer["inputTextTokenCount"]), (1_024, &3.into()));
    assert!((length(&answer["embedding"]) - 1.0).abs() < 1e-5);
    assert_eq!(answer["embeddingsByType"], json!({ "float": answer["embedding"] }));
    assert_eq!(invoke(&bedrock, TITAN, &json!({ "inputText": "hello there" })).await, answer);

    let body = json!({
        "inputText": "hello there", "dimensions": 256, "normalize": false, "embeddingTypes": ["float", "binary"],
    });
    let answer = invoke(&bedrock, TITAN, &body).await;
    assert!(length(&answer["embedding"]) > 2.0);
    let (float, binary) = (&answer["embeddingsByType"]["float"], &answer["embeddingsByType"]["binary"]);
    assert_eq!((dimensions(float), dimensions(binary)), (256, 256));
    assert!(binary.as_array().unwrap().iter().all(|bit| *bit == 0 || *bit == 1));
}

#[tokio::test]
async fn titan_g1_has_no_settings() {
    let bedrock = Bedrock::start().await;
    let answer = invoke(&bedrock, "amazon.titan-embed-text-v1", &json!({ "inputText": "hello" })).await;
    assert_eq!(dimensions(&answer["embedding"]), 1_536);
    assert!(answer.get("embeddingsByType").is_none());
}

#[tokio::test]
async fn cohere_embeds_several_texts_as_a_list_or_by_type() {
    let bedrock = Bedrock::start().await;
    let body = json!({ "texts": ["one", "two"], "input_type": "search_document" });
    let answer = invoke(&bedrock, COHERE_V3, &body).await;
    assert_eq!((&answer["response_type"], &answer["texts"]), (&"embeddings_floats".into(), &body["texts"]));
    assert_eq!((dimensions(&answer["embeddings"]), dimensions(&answer["embeddings"][1])), (2, 1_024));
    assert_ne!(answer["embeddings"][0], answer["embeddings"][1]);

    let body = json!({
        "texts": ["one"], "input_type": "search_query", "embedding_types": ["float", "int8", "binary"],
        "output_dimension": 256, "truncate": "RIGHT",
    });
    let answer = invoke(&bedrock, COHERE_V4, &body).await;
    assert_eq!(answer["response_type"], "embeddings_by_type");
    let sizes = ["float", "int8", "binary"].map(|kind| dimensions(&answer["embeddings"][kind][0]));
    assert_eq!(sizes, [256, 256, 32]);
}

#[tokio::test]
async fn cohere_embeds_images_and_mixed_content() {
    let bedrock = Bedrock::start().await;
    let image = "data:image/png;base64,AAAA";
    let parts = json!([{ "type": "text", "text": "abcd" }, { "type": "image_url", "image_url": { "url": image } }]);
    let body = json!({ "inputs": [{ "content": parts }], "input_type": "search_document" });
    assert_eq!(dimensions(&invoke(&bedrock, COHERE_V4, &body).await["embeddings"][0]), 1_536);
    let body = json!({ "images": [image], "input_type": "image" });
    assert_eq!(dimensions(&invoke(&bedrock, COHERE_V3, &body).await["embeddings"][0]), 1_024);
    let stats = bedrock.stats().await;
    assert_eq!(stats["total"]["input_tokens"], 1 + 2 * tokens::IMAGE_TOKENS);
}

#[tokio::test]
async fn embeddings_use_only_input_tokens_and_report_them_in_headers() {
    let settings = format!("[[pools]]\nmodel_id = \"{TITAN}\"\ntokens_per_minute = 10");
    let bedrock = Bedrock::start_with(&settings).await;
    let body = json!({ "inputText": "x".repeat(40) }).to_string();
    let (response, _) = bedrock.send("POST", &format!("/model/{TITAN}/invoke"), &body).await;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("x-amzn-bedrock-input-token-count").as_deref(), Some("10"));
    assert_eq!(header("x-amzn-bedrock-output-token-count"), None);
    let (code, status, _) = refused(bedrock.client.invoke_model().model_id(TITAN).body(Blob::new(body)).send().await);
    assert_eq!((code.as_str(), status), ("ThrottlingException", 429));
    let stats = bedrock.stats().await;
    let total = &stats["total"];
    assert_eq!(
        (&total["input_tokens"], &total["output_tokens"], &total["quota_tokens"]),
        (&10.into(), &0.into(), &10.into())
    );
}

#[tokio::test]
async fn unsupported_requests_to_embedding_models_are_refused() {
    let bedrock = Bedrock::start().await;
    let long = "x".repeat(4 * 8_192 + 1);
    let many: Vec<&str> = std::iter::repeat_n("x", 97).collect();
    let document = "search_document";
    for (model_id, body, expected) in [
        (TITAN, json!({ "texts": ["x"] }), "#: required key [inputText] not found#: extraneous key [texts]"),
        (TITAN, json!({ "inputText": "" }), "expected minLength: 1, actual: 0"),
        (TITAN, json!({ "inputText": "x", "dimensions": 300 }), "#/dimensions"),
        (TITAN, json!({ "inputText": "x", "embeddingTypes": ["int8"] }), "#/embeddingTypes/0"),
        (
            TITAN,
            json!({ "inputText": long }),
            "Too many input tokens. Max input tokens: 8192, request input token count: 8193",
        ),
        (
            COHERE_V3,
            json!({ "inputText": "x" }),
            "#: required key [texts] not found#: required key [input_type] not found#: extraneous key [inputText]",
        ),
        (
            COHERE_V3,
            json!({ "texts": many, "input_type": document }),
            "#/texts: expected maximum item count: 96, found: 97",
        ),
        (
            COHERE_V3,
            json!({ "texts": ["x".repeat(2_049)], "input_type": document }),
            "#/texts/0: expected maxLength: 2048",
        ),
        (COHERE_V3, json!({ "texts": ["x"], "input_type": "poem" }), "#/input_type"),
        (
            COHERE_V3,
            json!({ "texts": ["x"], "input_type": document, "output_dimension": 256 }),
            "extraneous key [output_dimension]",
        ),
        (COHERE_V4, json!({ "input_type": document }), "exactly one of texts, images and inputs"),
        (COHERE_V4, json!({ "texts": ["x"], "input_type": document, "output_dimension": 300 }), "#/output_dimension"),
        (COHERE_V4, json!({ "texts": ["x"], "input_type": document, "truncate": "END" }), "#/truncate"),
    ] {
        let body = Blob::new(body.to_string());
        let (code, status, message) = refused(bedrock.client.invoke_model().model_id(model_id).body(body).send().await);
        assert_eq!((code.as_str(), status), ("ValidationException", 400));
        assert!(message.contains(expected), "{message} does not say {expected}");
    }
    let converse = bedrock.client.converse().model_id(TITAN).messages(user("x")).send().await;
    assert!(refused(converse).2.contains("doesn't support the model"));
    let body = Blob::new(json!({ "inputText": "x" }).to_string());
    let stream = bedrock.client.invoke_model_with_response_stream().model_id(TITAN).body(body).send().await;
    assert!(refused(stream).2.contains("unsupported for streaming"));
}
