//! The contract as a document and as a page.

use serde_json::{Map, Value};

use crate::support::browser::Browser;
use crate::support::process::command;
use crate::support::{Reply, TestShop};

/// The contract that clients were written against, without its descriptions.
const PUBLISHED: &str = include_str!("contract/openapi.json");

#[tokio::test]
async fn a_file_whose_name_is_no_text_is_not_found() {
    let shop = TestShop::open().await;
    for file in ["/docs/%FF", "/docs/nothing"] {
        shop.gets(file).await.is_error(404, "not_found");
    }
}

#[tokio::test]
async fn the_program_prints_the_document_that_it_serves() {
    let shop = TestShop::open().await;
    let served = shop.gets("/api/openapi.json").await;
    assert_eq!(served.header("content-type"), Some("application/json"));
    let printed = command(&["openapi"]).output().await.unwrap();
    assert!(printed.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), served.json());
}

#[tokio::test]
async fn the_document_keeps_everything_that_was_published() {
    let shop = TestShop::open().await;
    let served = shop.gets("/api/openapi.json").await.json();
    let published: Value = serde_json::from_str(PUBLISHED).unwrap();
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1."), "{}", served["openapi"]);

    let mut operations = 0;
    for (path, methods) in object(&published["paths"]) {
        for (method, operation) in object(methods) {
            let place = format!("{method} {path}");
            let ours = &served["paths"][path][method];
            assert!(ours.is_object(), "{place} is gone");
            keeps_parameters(&place, operation, ours);
            keeps_security(&place, (&published, operation), (&served, ours));
            if let Some(body) = operation.get("requestBody") {
                assert_eq!(ours["requestBody"]["required"], body["required"], "{place}");
                let (theirs, ours) = (json(body), json(&ours["requestBody"]));
                keeps(&format!("{place} request"), (&published, theirs), (&served, ours), true);
            }
            for (status, response) in object(&operation["responses"]) {
                let place = format!("{place} {status}");
                let ours = &ours["responses"][status];
                assert!(ours.is_object(), "{place} is gone");
                // An answer without content may have none.
                if response.get("content").is_some() {
                    keeps(&place, (&published, json(response)), (&served, json(ours)), false);
                }
            }
            operations += 1;
        }
    }
    assert_eq!(operations, 4);
}

/// The sources in which errors get their codes, for each API; the shop's answers may also come
/// from a gateway in front.
const CODES: [(&str, &[&str]); 2] = [
    (
        "shop",
        &[
            include_str!("../../src/http/error.rs"),
            include_str!("../../src/shop/ledger.rs"),
            include_str!("../../src/gateway/answer.rs"),
            include_str!("../../src/accept/refused.rs"),
        ],
    ),
    (
        "admin",
        &[
            include_str!("../../src/gateway/admin/error.rs"),
            include_str!("../../src/accept/refused.rs"),
        ],
    ),
];

/// What no operation in a document ends in: the ledger's word to a login that came second, which
/// is then a login like any other; and of the admin API, what its page and document may say.
const NOT_SHOWN: [(&str, &str); 2] = [("shop", "username_taken"), ("admin", "not_acceptable")];

#[tokio::test]
async fn every_code_that_an_error_can_have_is_in_the_document_beside_an_example() {
    for (api, sources) in CODES {
        let mut codes: Vec<&str> = sources.iter().flat_map(|source| codes_in(source)).collect();
        codes.retain(|code| !NOT_SHOWN.contains(&(api, code)));
        codes.sort_unstable();
        codes.dedup();
        assert!(codes.len() > 15, "{api}: {codes:?}");
        let document = printed(api).await;
        let shown = &document["components"]["schemas"]["ErrorCode"]["enum"];
        assert_eq!(shown, &serde_json::json!(codes), "{api}");

        // The enum is made of the examples, so each code has one; of its own status.
        let unauthorized = "/responses/401/content/application~1json/examples";
        for (place, operation) in operations(&document) {
            let Some(examples) = operation.pointer(unauthorized) else { continue };
            let names: Vec<&String> = object(examples).keys().collect();
            let about_who: [&str; 3] = ["unauthorized", "unknown_account", "wrong_password"];
            assert!(names.iter().all(|it| about_who.contains(&it.as_str())), "{place}: {names:?}");
        }
    }
}

#[tokio::test]
async fn every_operation_says_what_any_may_end_in_and_with_which_headers() {
    let all = ["404", "405", "408", "413", "414", "431", "500", "503", "505"];
    let shop = [&all[..], &["429", "502", "504", "508"]].concat();
    let admin = [&all[..], &["400", "401"]].concat();
    for (api, statuses) in [("shop", shop), ("admin", admin)] {
        let document = printed(api).await;
        assert!(!document["servers"].as_array().unwrap().is_empty(), "{api}");
        for (place, operation) in operations(&document) {
            let responses = object(&operation["responses"]);
            for status in &statuses {
                assert!(responses.contains_key(*status), "{api}: {place} has no {status}");
            }
            for (status, response) in responses {
                let place = format!("{api}: {place} {status}");
                let response = resolved((&document, response));
                let has = |name: &str| {
                    let header = &response["headers"][name];
                    header.is_object() && resolved((&document, header))["schema"].is_object()
                };
                assert_eq!(has("Allow"), status == "405", "{place}");
                assert_eq!(has("WWW-Authenticate"), status == "401", "{place}");
                let later = ["429", "502", "503"].contains(&status.as_str());
                assert_eq!(has("Retry-After"), later, "{place}");
                assert_eq!(has("X-Request-Id"), api == "shop", "{place}");
            }
        }
    }
}

#[tokio::test]
async fn a_postman_collection_has_a_request_for_every_operation() {
    for api in ["shop", "admin"] {
        let arguments = ["openapi", "--api", api, "--format", "postman"];
        let collection = command(&arguments).output().await.unwrap().stdout;
        let collection: Value = serde_json::from_slice(&collection).unwrap();
        let folders = collection["item"].as_array().unwrap().iter();
        let requests: Vec<String> = folders
            .flat_map(|folder| folder["item"].as_array().unwrap())
            .map(|item| {
                let (method, url) = (&item["request"]["method"], &item["request"]["url"]["raw"]);
                let path = url.as_str().unwrap().trim_start_matches("{{baseUrl}}");
                format!("{} {path}", method.as_str().unwrap().to_lowercase())
            })
            .collect();
        for (place, _) in operations(&printed(api).await) {
            let place = place.replace('{', ":").replace('}', "");
            assert!(requests.contains(&place), "{api}: {place} is not in {requests:?}");
        }
    }
}

/// A client that sends what a document allows must not be refused for its shape.
#[tokio::test]
async fn bounds_are_those_of_the_code() {
    let (shop, admin) = (printed("shop").await, printed("admin").await);
    let body = "/components/schemas";
    for (document, pointer, expected) in [
        (&shop, format!("{body}/AuthRequest/properties/username/minLength"), 1),
        (&shop, format!("{body}/AuthRequest/properties/username/maxLength"), 255),
        (&shop, format!("{body}/AuthRequest/properties/password/minLength"), 1),
        (&shop, format!("{body}/AuthRequest/properties/password/maxLength"), 1024),
        (&shop, format!("{body}/SendCoinRequest/properties/amount/minimum"), 1),
        (&shop, format!("{body}/SendCoinRequest/properties/toUser/minLength"), 1),
        (&shop, "/paths/~1api~1history/get/parameters/0/schema/minimum".into(), 1),
        (&shop, "/paths/~1api~1history/get/parameters/0/schema/maximum".into(), 100),
        (&admin, format!("{body}/LimitBody/properties/capacity/minimum"), 1),
        (&admin, format!("{body}/LimitBody/properties/capacity/maximum"), 1_000_000),
        (&admin, format!("{body}/LimitBody/properties/rate_per_sec/minimum"), 1),
        (&admin, format!("{body}/ClientLimitBody/properties/rate/minimum"), 1),
        (&admin, format!("{body}/NewBackend/properties/weight/minimum"), 1),
        (&admin, "/paths/~1limits/get/parameters/0/schema/maximum".into(), 100),
    ] {
        assert_eq!(document.pointer(&pointer), Some(&expected.into()), "{pointer}");
    }
    for (_, operation) in operations(&shop).into_iter().chain(operations(&admin)) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        assert!(parameters.clone().all(|it| it["schema"]["type"].is_string()), "{operation}");
        if let Some(body) = operation.get("requestBody") {
            assert!(json(body)["$ref"].is_string(), "a body that may be null: {body}");
        }
    }
}

/// Generators of clients name types after operations too; where two have one name, what they
/// generate does not compile.
#[tokio::test]
async fn no_operation_takes_a_schemas_name_away() {
    for api in ["shop", "admin"] {
        let document = printed(api).await;
        let schemas = object(&document["components"]["schemas"]);
        let names: Vec<String> = schemas.keys().map(|name| name.to_lowercase()).collect();
        for (place, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap().to_lowercase();
            for end in ["", "response", "params", "body", "jsonbody", "jsonrequestbody"] {
                assert!(!names.contains(&format!("{id}{end}")), "{api}: {place} is {id}{end}");
            }
        }
    }
}

#[tokio::test]
async fn somebody_buys_a_cup_on_the_page_without_any_other_server() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let browser = Browser::start().await;
    browser.opens(&format!("{}/docs", shop.base)).await;

    browser.clicks(".btn.authorize").await;
    browser.types(".auth-container input", &alice.token).await;
    browser.clicks(".auth-container button.authorize").await;
    browser.clicks(".auth-container button.btn-done").await;

    browser.clicks("#operations-shop-buy .opblock-summary-control").await;
    let item = "#operations-shop-buy tr[data-param-name='item'] input";
    browser.types(item, "cup").await;
    browser.clicks("#operations-shop-buy button.execute").await;
    let status = "#operations-shop-buy .live-responses-table .response-col_status";
    assert!(browser.reads(&format!("{status}:not(.col_header)")).await.starts_with("200"));
    assert_eq!((alice.owns("cup").await, alice.coins().await), (1, 980));

    let loaded = browser.has_loaded().await;
    for needed in ["/docs", "/docs/swagger-ui-bundle.js", "/api/openapi.json", "/api/buy/cup"] {
        assert!(loaded.contains(&format!("{}{needed}", shop.base)), "{needed}: {loaded:?}");
    }
    let own = |address: &String| address.starts_with(&shop.base) || address.starts_with("data:");
    assert!(loaded.iter().all(own), "{loaded:?}");
    browser.closes().await;
}

#[tokio::test]
async fn the_page_names_no_other_server() {
    let shop = TestShop::open().await;
    let page = shop.gets("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("<title>merch-store</title>"), "{}", page.text);
    let sources = page.text.split(['"', '\'']).filter(|text| text.contains("//"));
    assert_eq!(sources.collect::<Vec<_>>(), Vec::<&str>::new());
    let files = page.text.split('"').filter(|text| text.starts_with("/docs/"));
    let mut count = 0;
    for file in files {
        let reply: Reply = shop.gets(file).await;
        assert_eq!(reply.status, 200, "{file}");
        count += 1;
    }
    assert!(count >= 4, "{}", page.text);
}

/// The document of `api` as the program prints it.
async fn printed(api: &str) -> Value {
    let printed = command(&["openapi", "--api", api]).output().await.unwrap();
    assert!(printed.status.success());
    serde_json::from_slice(&printed.stdout).unwrap()
}

/// The codes that a source gives to errors, in its function `code` or `words`.
fn codes_in(source: &str) -> Vec<&str> {
    let start = ["fn code(", "fn words("].iter().find_map(|start| source.split_once(start));
    let function = start.expect("errors have codes").1;
    let function = function.split_once("\n    }\n").expect("a function ends").0;
    let is_code = |text: &&str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    function.split('"').skip(1).step_by(2).filter(is_code).collect()
}

/// Every operation, by its method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = object(&document["paths"]).iter();
    let of_path = |(path, methods)| {
        object(methods).iter().map(move |(method, it)| (format!("{method} {path}"), it))
    };
    paths.flat_map(of_path).collect()
}

/// Every published parameter is there, and none that clients do not know is required.
#[track_caller]
fn keeps_parameters(place: &str, theirs: &Value, ours: &Value) {
    let none = Vec::new();
    let theirs = theirs["parameters"].as_array().unwrap_or(&none);
    let ours = ours["parameters"].as_array().unwrap_or(&none);
    let same =
        |one: &Value, other: &Value| one["name"] == other["name"] && one["in"] == other["in"];
    for parameter in theirs {
        let kept = ours.iter().find(|it| same(it, parameter));
        let kept = kept.unwrap_or_else(|| panic!("{place}: {parameter} is gone"));
        assert_eq!(kept["required"], parameter["required"], "{place}");
        assert_eq!(kept["schema"]["type"], parameter["schema"]["type"], "{place}");
    }
    for parameter in ours.iter().filter(|it| it["required"] == true) {
        assert!(theirs.iter().any(|it| same(it, parameter)), "{place}: {parameter} is new");
    }
}

/// The operation wants the same token. What was published asks for one at login too, by an
/// oversight: it is the default there, and nobody has a token yet.
#[track_caller]
fn keeps_security(place: &str, theirs: (&Value, &Value), ours: (&Value, &Value)) {
    let wanted = |(document, operation): (&Value, &Value)| {
        operation.get("security").unwrap_or(&document["security"]).clone()
    };
    if place == "post /api/auth" {
        assert_eq!(wanted(ours), serde_json::json!([{}]), "{place}");
        return;
    }
    assert_eq!(wanted(ours), wanted(theirs), "{place}");
    for name in wanted(theirs)[0].as_object().unwrap().keys() {
        let scheme = |document: &Value| document["components"]["securitySchemes"][name].clone();
        for (key, value) in object(&scheme(theirs.0)) {
            assert_eq!(&scheme(ours.0)[key], value, "{place}: {name}");
        }
    }
}

/// The schema has every published property by its name and type, and more at most. In a
/// request nothing may be required that was not, and what was required still is.
#[track_caller]
fn keeps(place: &str, theirs: (&Value, &Value), ours: (&Value, &Value), request: bool) {
    let (theirs, ours) = ((theirs.0, resolved(theirs)), (ours.0, resolved(ours)));
    assert_eq!(ours.1["type"], theirs.1["type"], "{place}");
    if let Some(format) = theirs.1.get("format") {
        assert_eq!(&ours.1["format"], format, "{place}");
    }
    let required = |schema: &Value| {
        let mut names: Vec<String> =
            serde_json::from_value(schema["required"].clone()).unwrap_or_default();
        names.sort();
        names
    };
    match theirs.1["type"].as_str().unwrap() {
        "object" => {
            if request {
                assert_eq!(required(ours.1), required(theirs.1), "{place}");
            }
            for (name, schema) in object(&theirs.1["properties"]) {
                let place = format!("{place}.{name}");
                let kept = ours.1["properties"].get(name);
                let kept = kept.unwrap_or_else(|| panic!("{place} is gone"));
                keeps(&place, (theirs.0, schema), (ours.0, kept), request);
            }
        }
        "array" => {
            let items = ((theirs.0, &theirs.1["items"]), (ours.0, &ours.1["items"]));
            keeps(&format!("{place}[]"), items.0, items.1, request);
        }
        _ => {}
    }
}

/// The schema itself where it is only named.
fn resolved<'a>((document, schema): (&'a Value, &'a Value)) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => document.pointer(name.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

fn json(message: &Value) -> &Value {
    &message["content"]["application/json"]["schema"]
}

#[track_caller]
fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
}
