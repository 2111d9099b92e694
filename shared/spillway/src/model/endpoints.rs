//! Endpoints of Bedrock Runtime.

use aws_sdk_bedrockruntime::config::endpoint::{DefaultResolver, Endpoint, EndpointFuture, Params, ResolveEndpoint};

use crate::config::BedrockEndpoints;

/// Resolves the endpoint of a call by its region: the configured endpoint, or else the SDK's.
#[derive(Debug)]
pub struct RegionalEndpoints {
    configured: BedrockEndpoints,
    default: DefaultResolver,
}

impl RegionalEndpoints {
    /// Creates the resolver.
    pub fn new(configured: BedrockEndpoints) -> Self {
        Self { configured, default: DefaultResolver::new() }
    }
}

impl ResolveEndpoint for RegionalEndpoints {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        match params.region().and_then(|region| self.configured.of(region)) {
            Some(url) => EndpointFuture::ready(Ok(Endpoint::builder().url(url.to_owned()).build())),
            None => ResolveEndpoint::resolve_endpoint(&self.default, params),
        }
    }
}
