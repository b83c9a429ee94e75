//! What the server answers, as OpenAPI describes it: for programs that are not ours, and for those that test this one.
//!
//! Spec: protocol.md, which says more than this form can.

use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::problem::ProblemClass;

/// What a request is answered with when all is well.
enum Success {
    /// Nothing, with a status.
    Empty(u16),
    /// Bytes.
    Bytes,
    /// Bytes, or a part of them.
    Ranges,
    /// Words.
    Text,
    /// JSON of a form.
    Json(fn() -> Value),
}

/// A method on a path.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    success: Success,
    /// Whether bytes are sent with it.
    sends: bool,
}

const fn operation(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    success: Success,
) -> Operation {
    Operation { method, path, summary, success, sends: false }
}

/// All of them, but for the pages.
const OPERATIONS: [Operation; 14] = [
    operation("get", "/healthz", "Whether the server takes work", Success::Text),
    operation("get", "/metrics", "Counters, for Prometheus", Success::Text),
    operation("get", "/openapi.json", "This description", Success::Json(any_object)),
    operation("get", "/v1/{namespace}", "What the token may do here", Success::Json(about)),
    operation("put", "/v1/{namespace}", "Make the directories of a new repository", Success::Empty(201)),
    operation("post", "/v1/{namespace}/mend", "Make those that are gone again", Success::Empty(204)),
    operation(
        "get",
        "/v1/{namespace}/strangers/{kind}",
        "What lies there and is no file",
        Success::Json(paths),
    ),
    operation(
        "get",
        "/v1/{namespace}/arriving/{kind}/{name}",
        "How many bytes have arrived of a file that broke off",
        Success::Text,
    ),
    operation("get", "/v1/{namespace}/{kind}", "Names and lengths of files, 40 bytes each", Success::Bytes),
    operation("head", "/v1/{namespace}/{kind}", "Whether files can be listed", Success::Empty(200)),
    operation("get", "/v1/{namespace}/{kind}/{name}", "A file, or a part of it", Success::Ranges),
    operation("head", "/v1/{namespace}/{kind}/{name}", "The length of a file", Success::Empty(200)),
    Operation {
        sends: true,
        ..operation("put", "/v1/{namespace}/{kind}/{name}", "Send a file", Success::Empty(201))
    },
    operation("delete", "/v1/{namespace}/{kind}/{name}", "Delete a file", Success::Empty(204)),
];

fn any_object() -> Value {
    json!({ "type": "object" })
}

fn about() -> Value {
    json!({
        "type": "object",
        "required": ["protocol", "rights", "domain"],
        "properties": {
            "protocol": { "const": 1 },
            "rights": { "type": "array", "items": { "enum": ["read", "append", "forget", "admin"] } },
            "domain": { "type": "string" },
        },
    })
}

fn paths() -> Value {
    json!({ "type": "array", "items": { "type": "string" } })
}

/// The description. Spec: P-7-3.
pub(crate) async fn description() -> Response {
    axum::Json(describe()).into_response()
}

fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in &OPERATIONS {
        let described = describe_operation(operation);
        if let Some(methods) = paths.entry(operation.path).or_insert_with(|| json!({})).as_object_mut() {
            methods.insert(operation.method.to_owned(), described);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Diptych", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Problem": {
                "type": "object",
                "required": ["class", "detail"],
                "properties": {
                    "class": { "enum": ProblemClass::ALL.map(|(_, word, _)| word) },
                    "detail": { "type": "string" },
                },
            } },
        },
    })
}

fn describe_operation(operation: &Operation) -> Value {
    let is_open = !operation.path.starts_with("/v1/");
    let mut responses = Map::new();
    let bytes = json!({ "application/octet-stream": {} });
    match &operation.success {
        Success::Empty(status) => {
            responses.insert(status.to_string(), json!({ "description": "done" }));
        }
        Success::Bytes => {
            responses.insert("200".to_owned(), json!({ "description": "the bytes", "content": bytes }));
        }
        Success::Ranges => {
            responses.insert("200".to_owned(), json!({ "description": "the file", "content": bytes }));
            responses.insert("206".to_owned(), json!({ "description": "that part of it", "content": bytes }));
        }
        Success::Text => {
            let content = json!({ "text/plain": { "schema": { "type": "string" } } });
            responses.insert("200".to_owned(), json!({ "description": "as words", "content": content }));
        }
        Success::Json(schema) => {
            let content = json!({ "application/json": { "schema": schema() } });
            responses.insert("200".to_owned(), json!({ "description": "as JSON", "content": content }));
        }
    }
    for (class, _, status) in ProblemClass::ALL {
        if !is_open || class == ProblemClass::Draining {
            let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
            // An answer to HEAD has no body.
            let described = match operation.method {
                "head" => json!({ "description": class.word() }),
                _ => json!({ "description": class.word(), "content": content }),
            };
            responses.insert(status.to_string(), described);
        }
    }
    if !is_open {
        // What is no request at all is told so before anybody looks at it.
        responses.insert("400".to_owned(), json!({ "description": "no request" }));
    }
    let mut described = json!({ "summary": operation.summary, "responses": responses });
    let parameter =
        |name: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "schema": schema });
    let mut parameters = Vec::new();
    if operation.path.contains("{namespace}") {
        parameters.push(parameter(
            "namespace",
            json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$" }),
        ));
    }
    if operation.path.contains("{kind}") {
        let kinds = ["config", "keys", "data", "index", "snapshots", "locks"];
        parameters.push(parameter("kind", json!({ "enum": kinds })));
    }
    if operation.path.contains("{name}") {
        parameters.push(parameter("name", json!({ "type": "string", "pattern": "^([0-9a-f]{64}|config)$" })));
    }
    if matches!(operation.success, Success::Ranges) {
        let schema = json!({ "type": "string", "pattern": "^bytes=[0-9]{1,15}-[0-9]{1,15}$" });
        parameters.push(json!({ "name": "range", "in": "header", "required": false, "schema": schema }));
    }
    described["parameters"] = parameters.into();
    if operation.sends {
        let body = json!({ "required": true, "content": { "application/octet-stream": { "schema": {} } } });
        described["requestBody"] = body;
    }
    if !is_open {
        described["security"] = json!([{ "token": [] }]);
    }
    described
}
