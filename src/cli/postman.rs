//! An OpenAPI document as a Postman collection (format 2.1): a folder a tag, a request a step,
//! filled in with the document's examples. The token is a variable, which a login fills, and so is
//! the number of what a step has made. Steps
//! are in an order in which each finds what it needs, and check their answers' status, so the
//! collection runs from top to bottom.

use serde_json::{Map, Value, json};

const SCHEMA: &str = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json";

/// References that are followed on the way to an example; a schema that contains itself ends.
const MAX_DEPTH: usize = 16;

/// One request: the operation's id, and what its body has instead of the examples, as JSON;
/// empty: nothing.
pub type Step = (&'static str, &'static str);

/// The collection of `steps` through `document`, whose operations are at `base_url` unless its
/// variable is changed.
pub fn collection(document: &Value, base_url: &str, steps: &[Step]) -> Value {
    let operations: Vec<Operation> = operations(document).collect();
    let mut folders: Vec<(&str, Vec<Value>)> = Vec::new();
    for (id, instead) in steps {
        let operation = operations.iter().find(|operation| operation.id() == *id);
        let operation = operation.expect("a step names an operation of the document");
        let item = operation.item(document, instead);
        match folders.iter_mut().find(|(name, _)| *name == operation.tag()) {
            Some((_, items)) => items.push(item),
            None => folders.push((operation.tag(), vec![item])),
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

/// An operation of a document.
struct Operation<'document> {
    path: &'document str,
    method: &'document str,
    said: &'document Value,
}

fn operations(document: &Value) -> impl Iterator<Item = Operation<'_>> {
    members(&document["paths"]).flat_map(|(path, methods)| {
        members(methods).map(move |(method, said)| Operation { path, method, said })
    })
}

impl Operation<'_> {
    fn id(&self) -> &str {
        self.said["operationId"].as_str().unwrap_or_default()
    }

    fn tag(&self) -> &str {
        self.said["tags"][0].as_str().unwrap_or("other")
    }

    /// The request with a name and a script that checks the answer.
    fn item(&self, document: &Value, instead: &str) -> Value {
        let name = self.said["summary"].as_str().unwrap_or(self.path).trim_end_matches('.');
        let done = members(&self.said["responses"]).map(|(status, _)| status).min();
        let done = done.map_or("200", String::as_str);
        let mut script = vec![format!(
            "pm.test(\"the answer is {done}\", () => pm.response.to.have.status({done}));"
        )];
        let answer = &self.said["responses"][done]["content"]["application/json"]["schema"];
        if resolved(document, answer)["properties"]["token"].is_object() {
            let set = "pm.collectionVariables.set(\"token\", pm.response.json().token);";
            script.push(set.into());
        }
        if self.said["responses"][done]["headers"]["Location"].is_object() {
            let last = "pm.response.headers.get(\"Location\").split(\"/\").pop()";
            script.push(format!("pm.collectionVariables.set(\"id\", {last});"));
        }
        json!({
            "name": name,
            "event": [{"listen": "test", "script": {"type": "text/javascript", "exec": script}}],
            "request": self.request(document, instead),
            "response": [],
        })
    }

    fn request(&self, document: &Value, instead: &str) -> Value {
        let content = &self.said["requestBody"]["content"]["application/json"];
        let segments: Vec<String> = self.path.split('/').skip(1).map(variable).collect();
        let mut url = json!({
            "raw": format!("{{{{baseUrl}}}}/{}", segments.join("/")),
            "host": ["{{baseUrl}}"],
            "path": segments,
        });
        let query = self.entries(document, "query", !content.is_object());
        if !query.is_empty() {
            url["query"] = query.into();
        }
        let variables = self.entries(document, "path", true);
        if !variables.is_empty() {
            url["variable"] = variables.into();
        }
        let mut headers = self.entries(document, "header", false);
        let mut request = json!({
            "method": self.method.to_uppercase(),
            "description": self.said["description"].as_str().unwrap_or_default(),
            "url": url,
        });
        if content.is_object() {
            headers.push(json!({"key": "Content-Type", "value": "application/json"}));
            let mut body = example(document, content, 0);
            let instead = serde_json::from_str(instead).unwrap_or_default();
            members(&instead).for_each(|(name, value)| body[name] = value.clone());
            request["body"] = json!({
                "mode": "raw",
                "raw": serde_json::to_string_pretty(&body).unwrap_or_default(),
                "options": {"raw": {"language": "json"}},
            });
        }
        request["header"] = headers.into();
        let is_open = self.said["security"].as_array().is_some_and(|ways| {
            !ways.is_empty() && ways.iter().all(|way| members(way).next().is_none())
        });
        if is_open {
            request["auth"] = json!({"type": "noauth"});
        }
        request
    }

    /// The parameters of a kind that have an example. Those that may be left out are sent only if
    /// they are `used`, and in no case where there is but a default to show.
    fn entries(&self, document: &Value, kind: &str, used: bool) -> Vec<Value> {
        let parameters = self.said["parameters"].as_array().into_iter().flatten();
        let of_kind = parameters.filter(|parameter| parameter["in"] == kind);
        let entry = |parameter: &Value| {
            let value = match parameter["name"].as_str() {
                // Of what the last step with an address for it has made.
                Some("id") => "{{id}}".to_owned(),
                _ => text(&example(document, parameter, 0)),
            };
            let mut entry = json!({
                "key": parameter["name"],
                "value": value,
                "description": parameter["description"],
            });
            let is_example = parameter.get("example").is_some();
            if parameter["required"] != true && !(used && is_example) {
                entry["disabled"] = true.into();
            }
            (!value.is_empty()).then_some(entry)
        };
        of_kind.filter_map(entry).collect()
    }
}

/// A piece of a path as Postman spells it.
fn variable(segment: &str) -> String {
    segment.replace('{', ":").replace('}', "")
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
    if schema["$ref"].is_string() {
        return example(document, resolved(document, schema), depth + 1);
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
            // What may be left out is, unless there is something to show for it.
            let required = schema["required"].as_array().into_iter().flatten();
            let required: Vec<&str> = required.filter_map(Value::as_str).collect();
            let is_shown = |(name, field): &(&String, &Value)| {
                required.contains(&name.as_str()) || field.get("example").is_some()
            };
            let fields = members(&schema["properties"]).filter(is_shown);
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

/// The schema itself where it is only named.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"].as_str().map(|name| name.trim_start_matches('#'));
    name.map_or(schema, |pointer| document.pointer(pointer).unwrap_or(&Value::Null))
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
    fn a_step_is_a_request_that_checks_its_answer() {
        let document = json!({
            "info": {"title": "zoo", "version": "1"},
            "paths": {"/cages/{cage}": {"put": {
                "tags": ["cages"],
                "operationId": "lock",
                "summary": "Lock a cage.",
                "parameters": [
                    {"in": "path", "name": "cage", "required": true, "example": "lion"},
                    {"in": "query", "name": "twice", "schema": {"default": false}},
                    {"in": "query", "name": "nothing", "schema": {"type": "string"}},
                ],
                "requestBody": {"content": {"application/json": {
                    "schema": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Key"}]},
                }}},
                "responses": {"201": {"content": {"application/json": {"schema": {
                    "properties": {"token": {"type": "string"}},
                }}}}, "404": {}},
            }}},
            "components": {"schemas": {"Key": {
                "type": "object",
                "required": ["teeth"],
                "properties": {
                    "teeth": {"type": ["integer", "null"], "minimum": 3},
                    "name": {"type": "string"},
                    "colour": {"type": "string", "example": "red"},
                },
            }}},
        });
        let steps = [("lock", ""), ("lock", r#"{"teeth": 7}"#)];
        let collection = collection(&document, "http://zoo", &steps);
        assert_eq!(collection["info"]["schema"], SCHEMA);
        let folder = &collection["item"][0];
        assert_eq!(folder["name"], "cages");
        let (item, request) = (&folder["item"][0], &folder["item"][0]["request"]);
        assert_eq!(
            (item["name"].as_str(), request["method"].as_str()),
            (Some("Lock a cage"), Some("PUT"))
        );
        let script = item["event"][0]["script"]["exec"].to_string();
        assert!(
            script.contains("have.status(201)") && script.contains("set(\\\"token"),
            "{script}"
        );
        assert_eq!(request["url"]["raw"], "{{baseUrl}}/cages/:cage");
        assert_eq!(request["url"]["variable"][0]["value"], "lion");
        let twice =
            json!([{"key": "twice", "value": "false", "description": null, "disabled": true}]);
        assert_eq!(request["url"]["query"], twice);
        let body = |step: usize| {
            let text = folder["item"][step]["request"]["body"]["raw"].as_str().unwrap();
            serde_json::from_str::<Value>(text).unwrap()
        };
        assert_eq!(body(0), json!({"teeth": 3, "colour": "red"}));
        assert_eq!(body(1), json!({"teeth": 7, "colour": "red"}));
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
