//! An OpenAPI document as a Postman collection (format 2.1): a folder a tag, a request an
//! operation, filled in with the document's examples, the token a variable.

use serde_json::{Map, Value, json};

const SCHEMA: &str = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json";

/// References that are followed on the way to an example; a schema that contains itself ends.
const MAX_DEPTH: usize = 16;

/// The collection of all operations in `document`, which are at `base_url` unless its
/// variable is changed.
pub fn collection(document: &Value, base_url: &str) -> Value {
    let mut folders: Vec<(&str, Vec<Value>)> = Vec::new();
    for (path, operations) in members(&document["paths"]) {
        for (method, operation) in members(operations) {
            let tag = operation["tags"][0].as_str().unwrap_or("other");
            let request = request(document, path, method, operation);
            match folders.iter_mut().find(|(name, _)| *name == tag) {
                Some((_, requests)) => requests.push(request),
                None => folders.push((tag, vec![request])),
            }
        }
    }
    let folders: Vec<Value> =
        folders.into_iter().map(|(name, item)| json!({"name": name, "item": item})).collect();
    json!({
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "version": document["info"]["version"],
            "schema": SCHEMA,
        },
        "auth": {
            "type": "bearer",
            "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}],
        },
        "variable": [
            {"key": "baseUrl", "value": base_url, "type": "string"},
            {"key": "token", "value": "", "type": "string"},
        ],
        "item": folders,
    })
}

fn request(document: &Value, path: &str, method: &str, operation: &Value) -> Value {
    let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let of_kind = |kind: &'static str| {
        parameters.iter().filter(move |parameter| parameter["in"] == kind).map(move |parameter| {
            let example = text(&example(document, parameter, 0));
            let mut entry = json!({
                "key": parameter["name"],
                "value": example,
                "description": parameter["description"],
            });
            if parameter["required"] != true && kind != "path" {
                entry["disabled"] = true.into();
            }
            entry
        })
    };
    let query: Vec<Value> = of_kind("query").collect();
    let variables: Vec<Value> = of_kind("path").collect();
    let mut headers: Vec<Value> = of_kind("header").collect();

    let segments: Vec<String> =
        path.split('/').skip(1).map(|segment| segment.replace('{', ":").replace('}', "")).collect();
    let mut url = json!({
        "raw": format!("{{{{baseUrl}}}}/{}", segments.join("/")),
        "host": ["{{baseUrl}}"],
        "path": segments,
    });
    if !query.is_empty() {
        url["query"] = query.into();
    }
    if !variables.is_empty() {
        url["variable"] = variables.into();
    }
    let mut request = json!({
        "method": method.to_uppercase(),
        "description": operation["description"].as_str().unwrap_or_default(),
        "url": url,
    });
    let content = &operation["requestBody"]["content"]["application/json"];
    if content.is_object() {
        headers.push(json!({"key": "Content-Type", "value": "application/json"}));
        let body = example(document, content, 0);
        request["body"] = json!({
            "mode": "raw",
            "raw": serde_json::to_string_pretty(&body).unwrap_or_default(),
            "options": {"raw": {"language": "json"}},
        });
    }
    request["header"] = headers.into();
    let is_open = operation["security"].as_array().is_some_and(|ways| {
        !ways.is_empty() && ways.iter().all(|way| members(way).next().is_none())
    });
    if is_open {
        request["auth"] = json!({"type": "noauth"});
    }
    let name = operation["summary"].as_str().or(operation["operationId"].as_str());
    json!({"name": name.unwrap_or(path).trim_end_matches('.'), "request": request, "response": []})
}

/// A value that `schema`, or something that has one, may stand for.
fn example(document: &Value, schema: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    for key in ["example", "default"] {
        if let Some(value) = schema.get(key) {
            return value.clone();
        }
    }
    if let Some(first) = schema["examples"].as_array().and_then(|examples| examples.first()) {
        return first.clone();
    }
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#');
        return example(document, document.pointer(pointer).unwrap_or(&Value::Null), depth + 1);
    }
    if let Some(inner) = schema.get("schema") {
        return example(document, inner, depth + 1);
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        let mut alternatives = schema[key].as_array().into_iter().flatten();
        if let Some(one) = alternatives.rfind(|one| one["type"] != "null") {
            return example(document, one, depth + 1);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").unwrap_or(&Value::Null),
        kind => kind,
    };
    match kind.as_str() {
        Some("object") => {
            let fields = members(&schema["properties"]);
            let fields: Map<String, Value> = fields
                .map(|(name, field)| (name.clone(), example(document, field, depth + 1)))
                .collect();
            fields.into()
        }
        Some("array") => json!([example(document, &schema["items"], depth + 1)]),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        Some("string") => json!(""),
        _ => Value::Null,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_becomes_a_request_with_its_examples() {
        let document = json!({
            "info": {"title": "zoo", "version": "1"},
            "paths": {"/cages/{cage}": {"put": {
                "tags": ["cages"],
                "summary": "Lock a cage.",
                "parameters": [
                    {"in": "path", "name": "cage", "required": true, "example": "lion"},
                    {"in": "query", "name": "twice", "schema": {"type": "boolean"}},
                ],
                "requestBody": {"content": {"application/json": {
                    "schema": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Key"}]},
                }}},
            }}},
            "components": {"schemas": {"Key": {
                "type": "object",
                "properties": {"teeth": {"type": ["integer", "null"], "minimum": 3}},
            }}},
        });
        let collection = collection(&document, "http://zoo");
        assert_eq!(collection["info"]["schema"], SCHEMA);
        let folder = &collection["item"][0];
        assert_eq!(folder["name"], "cages");
        let (name, request) = (&folder["item"][0]["name"], &folder["item"][0]["request"]);
        assert_eq!((name.as_str(), request["method"].as_str()), (Some("Lock a cage"), Some("PUT")));
        assert_eq!(request["url"]["raw"], "{{baseUrl}}/cages/:cage");
        assert_eq!(request["url"]["variable"][0]["value"], "lion");
        assert_eq!(request["url"]["query"][0]["disabled"], true);
        let body: Value = serde_json::from_str(request["body"]["raw"].as_str().unwrap()).unwrap();
        assert_eq!(body, json!({"teeth": 3}));
    }

    #[test]
    fn a_schema_that_contains_itself_ends() {
        let document = json!({"components": {"schemas": {"Box": {
            "type": "object", "properties": {"inner": {"$ref": "#/components/schemas/Box"}},
        }}}});
        let schema = json!({"$ref": "#/components/schemas/Box"});
        assert!(example(&document, &schema, 0).is_object());
    }
}
