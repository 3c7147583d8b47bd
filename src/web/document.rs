//! How the documents of the shop's API and of the gateway's admin API show errors and headers.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{
    self, Components, ContentBuilder, License, LicenseBuilder, ObjectBuilder, OpenApi, Ref, RefOr,
    ResponseBuilder, Type,
};

/// The body of every error.
#[derive(Debug, Serialize)]
pub struct ErrorResponse {
    /// What is wrong, for people.
    pub errors: String,
    /// What is wrong, for machines.
    pub code: &'static str,
}

/// An error as it is answered, to be shown in a document.
pub struct ErrorAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: ErrorResponse,
}

impl ErrorAnswer {
    /// What is answered with these.
    pub fn new(status: StatusCode, code: &'static str, errors: impl Into<String>) -> ErrorAnswer {
        ErrorAnswer { status, body: ErrorResponse { errors: errors.into(), code } }
    }
}

/// Responses by their status.
pub type Responses = BTreeMap<String, RefOr<openapi::Response>>;

/// A header that answers may have.
pub struct AnswerHeader {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub description: &'static str,
    /// What it may look like.
    pub example: &'static str,
    /// The statuses that it may come with; empty: all.
    pub statuses: &'static [&'static str],
}

/// The headers that errors of their status have, whatever the API.
const OF_ERRORS: [AnswerHeader; 3] = [
    AnswerHeader {
        name: "Allow",
        description: "The methods that the path knows.",
        example: "GET,POST",
        statuses: &["405"],
    },
    AnswerHeader {
        name: "Retry-After",
        description: "After how many seconds to try again, a whole number.",
        example: "1",
        statuses: &["429", "502", "503"],
    },
    AnswerHeader {
        name: "WWW-Authenticate",
        description: "How to show who one is: `Bearer`.",
        example: "Bearer",
        statuses: &["401"],
    },
];

/// What is answered to heads of requests that cannot be read, whatever the API.
const OF_HEADS: [(StatusCode, &str, &str); 3] = [
    (StatusCode::URI_TOO_LONG, "uri_too_long", "the request's target is too long"),
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "head_too_large",
        "the request's headers are too many or too long",
    ),
    (
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        "version_not_supported",
        "this version of HTTP is not spoken here",
    ),
];

/// Of the program, and so of its documents.
pub fn license() -> License {
    LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()
}

/// `errors` as responses: one a status, each error an example under its code.
pub fn responses(errors: impl IntoIterator<Item = ErrorAnswer>) -> Responses {
    let mut by_status: BTreeMap<StatusCode, Vec<ErrorResponse>> = BTreeMap::new();
    for ErrorAnswer { status, body } in errors {
        by_status.entry(status).or_default().push(body);
    }
    let shown = by_status.into_iter();
    shown.map(|(status, errors)| (status.as_str().into(), response(status, errors))).collect()
}

fn response(status: StatusCode, errors: Vec<ErrorResponse>) -> RefOr<openapi::Response> {
    let examples = errors.into_iter().map(|body| {
        let example = ExampleBuilder::new().summary(&body.errors).value(Some(json!(body)));
        (body.code, example)
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ErrorResponse")))
        .examples_from_iter(examples);
    let response = ResponseBuilder::new().description(meaning(status));
    response.content("application/json", content.build()).build().into()
}

/// What a status means in both APIs.
fn meaning(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "The request is not well-formed, or it is refused; nothing changed.",
        401 => "The request does not show who it is from.",
        404 => "There is no such thing.",
        405 => "The path does not know the method.",
        406 => "The client takes the answer in no coding that there is.",
        408 => "The request did not arrive in time; nothing changed.",
        409 => "What is there already is in the way; nothing changed.",
        413 => "The body is too large; nothing changed.",
        414 => "The path and the query are too long; nothing changed.",
        422 => "The key was used for another request; nothing changed.",
        429 => "The client asks for too much; try again after `Retry-After` seconds.",
        431 => "The headers are too large; nothing changed.",
        500 => "Something is broken here; it was logged.",
        501 => "This server cannot do that.",
        502 => "A gateway got no answer from a server behind it; the code says what that means.",
        503 => "Too busy, or what is needed is away; try again after `Retry-After` seconds.",
        504 => "A server behind a gateway did not answer in time, and may still be doing it.",
        505 => "This version of HTTP is not spoken here.",
        508 => "The request went round in a circle.",
        _ => "An error.",
    }
}

/// Completes `document`: every operation may end in `errors`, answers have
/// these `headers`, and `ErrorResponse` knows the codes that are shown anywhere.
pub fn complete(document: &mut OpenApi, headers: &[AnswerHeader], errors: Vec<ErrorAnswer>) {
    let mut components = document.components.take().unwrap_or_default();
    let of_heads = OF_HEADS.map(|(status, code, errors)| ErrorAnswer::new(status, code, errors));
    let common = named(responses(errors.into_iter().chain(of_heads)));
    let mut codes = BTreeSet::new();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        for (status, (name, _)) in &common {
            let shared = || Ref::from_response_name(name).into();
            operation.responses.responses.entry(status.clone()).or_insert_with(shared);
        }
        for (status, response) in &mut operation.responses.responses {
            add_headers(status, response, &OF_ERRORS);
            add_headers(status, response, headers);
            codes.extend(codes_of(response));
        }
    }
    for (status, (name, mut response)) in common {
        add_headers(&status, &mut response, &OF_ERRORS);
        add_headers(&status, &mut response, headers);
        codes.extend(codes_of(&response));
        components.responses.insert(name, response);
    }
    describe_errors(&mut components, codes);
    document.components = Some(components);
    for header in OF_ERRORS.iter().chain(headers) {
        describe_header(document, header);
    }
}

/// Adds those of the headers to a response that may come with its status.
pub fn add_headers(
    status: &str,
    response: &mut RefOr<openapi::Response>,
    headers: &[AnswerHeader],
) {
    let RefOr::T(response) = response else { return };
    for header in headers {
        if header.statuses.is_empty() || header.statuses.contains(&status) {
            response.headers.insert(header.name.into(), RefOr::Ref(header.reference()));
        }
    }
}

/// Adds what responses refer to where they have the header.
pub fn describe_header(document: &mut OpenApi, header: &AnswerHeader) {
    let components = document.components.get_or_insert_default();
    components.headers.insert(header.key(), header.described().into());
}

/// Each of `responses` under a name of its own, which its status gives it.
fn named(responses: Responses) -> BTreeMap<String, (String, RefOr<openapi::Response>)> {
    let name = |status: &str| {
        let status = status.parse::<StatusCode>().ok().and_then(|it| it.canonical_reason());
        status.unwrap_or("Other").replace(' ', "")
    };
    responses.into_iter().map(|(status, it)| (status.clone(), (name(&status), it))).collect()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// The names of a response's examples, which are the codes of errors where it has any.
fn codes_of(response: &RefOr<openapi::Response>) -> Vec<String> {
    let RefOr::T(response) = response else { return Vec::new() };
    let content = response.content.values().filter_map(|content| match content {
        RefOr::T(content) => Some(content.examples.keys().cloned()),
        RefOr::Ref(_) => None,
    });
    content.flatten().collect()
}

/// Adds the schemas of errors.
fn describe_errors(components: &mut Components, codes: BTreeSet<String>) {
    let text = |description: &str| {
        ObjectBuilder::new().schema_type(Type::String).description(Some(description))
    };
    let code = "What is wrong, for machines. More may come: treat one that you do not know as its \
                status says.";
    let error = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("The body of every error."))
        .property("errors", text("What is wrong, for people."))
        .property("code", Ref::from_schema_name("ErrorCode"))
        .required("errors")
        .required("code");
    components.schemas.insert("ErrorCode".into(), text(code).enum_values(Some(codes)).into());
    components.schemas.insert("ErrorResponse".into(), error.into());
}

impl AnswerHeader {
    /// The header's name, as names of components have to be.
    fn key(&self) -> String {
        self.name.replace('-', "")
    }

    /// What stands for it in a response.
    fn reference(&self) -> Ref {
        Ref::new(format!("#/components/headers/{}", self.key()))
    }

    fn described(&self) -> openapi::Header {
        let text = ObjectBuilder::new().schema_type(Type::String);
        HeaderBuilder::new()
            .schema(Some(text))
            .description(Some(self.description))
            .example(Some(self.example.into()))
            .build()
    }
}
