//! A document of an API, and a page to try it on with everything that it needs in the binary.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerFile, serve};

use super::representation::{NotAcceptable, Representation};

/// What the page loads, and itself.
const FILES: [&str; 8] = [
    PAGE,
    "favicon-16x16.png",
    "favicon-32x32.png",
    "index.css",
    "swagger-initializer.js",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-ui.css",
];
const PAGE: &str = "index.html";

/// Why a client does not get a file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotServed {
    /// The page has no such file.
    Unknown,
    /// The client takes it in no coding that there is.
    NotAcceptable,
}

/// Serves `openapi` at `url`, and at `/docs` the page around it. What is not served has the error
/// that every other path has.
pub fn router<S, E>(url: &'static str, openapi: OpenApi) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    E: From<NotServed> + IntoResponse + Send + 'static,
{
    // Without a validator: it would send the document to a service outside.
    let config = Config::new([url])
        .validator_url("none")
        .persist_authorization(true)
        .try_it_out_enabled(true)
        .display_request_duration(true);
    let title = openapi.info.title.clone();
    // When they are asked for first: most processes never are.
    let document = Arc::new(LazyLock::new(move || {
        let text = serde_json::to_vec(&openapi).expect("a document is plain data");
        Representation::new(HeaderValue::from_static("application/json"), text.into())
    }));
    let files = Arc::new(LazyLock::new(move || files(config, &title)));
    let page = files.clone();
    let document = move |headers: HeaderMap| ready(answer::<E>(Some(&document), &headers));
    let page = move |headers: HeaderMap| ready(answer::<E>(page.get(PAGE), &headers));
    let file = move |name: Result<Path<String>, PathRejection>, headers: HeaderMap| {
        // What is no text is the name of nothing.
        let file = name.ok().and_then(|Path(name)| files.get(name.as_str()));
        ready(answer::<E>(file, &headers))
    };
    Router::new()
        .route(url, get(document))
        .route("/docs", get(page))
        .route("/docs/{file}", get(file))
}

fn answer<E: From<NotServed>>(
    representation: Option<&Representation>,
    headers: &HeaderMap,
) -> Result<Response, E> {
    let representation = representation.ok_or(NotServed::Unknown)?;
    Ok(representation.answer(headers).map_err(|NotAcceptable| NotServed::NotAcceptable)?)
}

fn files(config: Config<'static>, title: &str) -> HashMap<&'static str, Representation> {
    let config = Arc::new(config);
    let file = |name: &'static str| {
        let file = serve(name, config.clone()).ok().flatten().expect("the page is in the binary");
        (name, representation(name, file, title))
    };
    FILES.map(file).into()
}

fn representation(name: &str, file: SwaggerFile<'static>, title: &str) -> Representation {
    let content_type = file.content_type.parse().expect("a type of a file is a header value");
    let bytes = Bytes::from(file.bytes.into_owned());
    let representation = match file.gzpipped {
        true => Representation::of_gzip(content_type, bytes).expect("it was compressed well"),
        false => Representation::new(content_type, bytes),
    };
    if name != PAGE {
        return representation;
    }
    // The page has no slash at its end, below which it would look for what it loads.
    let page = String::from_utf8_lossy(representation.plain());
    let page = page.replace("\"./", "\"/docs/").replace("\"index.css", "\"/docs/index.css");
    let page = page.replace("<title>Swagger UI<", &format!("<title>{title}<"));
    Representation::new(HeaderValue::from_static("text/html; charset=utf-8"), page.into())
}
