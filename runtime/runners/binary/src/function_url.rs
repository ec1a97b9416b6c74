//! An HTTP request as a Lambda function-URL event, payload format 2.0, and the answer to it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::messages::{Fault, Head, Invoke};

/// The event for a request whose whole body is `body`.
pub fn event(invoke: &Invoke, body: &[u8]) -> Value {
    let (path, query) = invoke.path.split_once('?').unwrap_or((&invoke.path, ""));
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &invoke.headers {
        join(&mut headers, name, value, ", ");
    }
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        join(&mut parameters, name.into_owned(), &value, ",");
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let host = header("host");
    let forwarded = header("x-forwarded-for");
    let source = forwarded.split(',').next().unwrap_or_default().trim();
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = OffsetDateTime::from(SystemTime::now());
    let mut value = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "cloister",
            "domainName": host,
            "domainPrefix": host.split('.').next().unwrap_or_default(),
            "http": {
                "method": invoke.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": if source.is_empty() { "127.0.0.1" } else { source },
                "userAgent": header("user-agent"),
            },
            "requestId": invoke.id,
            "routeKey": "$default",
            "stage": "$default",
            "time": clf_time(now),
            "timeEpoch": u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        },
        "isBase64Encoded": false,
    });
    let Some(fields) = value.as_object_mut() else {
        return value;
    };
    if let Some(cookies) = headers.get("cookie") {
        let list: Vec<&str> = cookies.split(';').map(str::trim).collect();
        fields.insert("cookies".into(), json!(list));
    }
    if !parameters.is_empty() {
        fields.insert("queryStringParameters".into(), json!(parameters));
    }
    if !body.is_empty() {
        let text = std::str::from_utf8(body)
            .ok()
            .filter(|_| is_text(&header("content-type")));
        fields.insert("isBase64Encoded".into(), json!(text.is_none()));
        let body = text.map_or_else(|| STANDARD.encode(body), str::to_owned);
        fields.insert("body".into(), json!(body));
    }
    value
}

fn join<K: Ord>(map: &mut BTreeMap<K, String>, name: K, value: &str, separator: &str) {
    map.entry(name)
        .and_modify(|held| {
            held.push_str(separator);
            held.push_str(value);
        })
        .or_insert_with(|| value.to_owned());
}

fn is_text(content_type: &str) -> bool {
    let kind = content_type.to_ascii_lowercase();
    kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml", "javascript", "x-www-form-urlencoded"]
            .iter()
            .any(|part| kind.contains(part))
}

/// As in `24/Nov/2026:15:20:00 +0000`.
fn clf_time(now: OffsetDateTime) -> String {
    let month = now.month().to_string();
    format!(
        "{:02}/{}/{}:{:02}:{:02}:{:02} +0000",
        now.day(),
        month.get(..3).unwrap_or_default(),
        now.year(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status_code: u16,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    cookies: Vec<String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// Reads the whole output of a program as the answer to an HTTP request: a function-URL response if it is one, other JSON as it is.
pub fn answer(output: Vec<u8>) -> Result<(Head, Vec<u8>), Fault> {
    let Ok(value) = serde_json::from_slice::<Value>(&output) else {
        return Ok((plain_head(&output), output));
    };
    if value.get("statusCode").is_none() {
        return Ok((head(200, "application/json"), output));
    }
    let response: Response = serde_json::from_value(value).map_err(|error| {
        Fault::bad_response(&format!(
            "The answer has a statusCode but is no function-URL response: {error}."
        ))
    })?;
    if !(200..=599).contains(&response.status_code) {
        return Err(Fault::bad_response(&format!(
            "The answer's statusCode is {}. Use one from 200 to 599.",
            response.status_code
        )));
    }
    let mut headers = Vec::new();
    for (name, value) in response.headers {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        headers.push((name.to_ascii_lowercase(), text));
    }
    if !headers.iter().any(|(name, _)| name == "content-type") && response.body.is_some() {
        headers.push(("content-type".into(), "application/json".into()));
    }
    for cookie in response.cookies {
        headers.push(("set-cookie".into(), cookie));
    }
    let body = match response.body {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) if response.is_base64_encoded => {
            STANDARD.decode(text).map_err(|_| {
                Fault::bad_response("The answer's body is not the base64 it says it is.")
            })?
        }
        Some(Value::String(text)) => text.into_bytes(),
        Some(other) => other.to_string().into_bytes(),
    };
    let head = Head {
        status: response.status_code,
        headers,
    };
    Ok((head, body))
}

/// Head of an answer that is no JSON.
pub fn plain_head(start: &[u8]) -> Head {
    // A chunk may end inside a character; only what is wrong before its end makes it binary.
    let text = match std::str::from_utf8(start) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    let kind = if text {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    };
    head(200, kind)
}

/// A head with nothing but its content type.
pub fn head(status: u16, content_type: &str) -> Head {
    Head {
        status,
        headers: vec![("content-type".into(), content_type.into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Kind;

    fn invoke(headers: &[(&str, &str)]) -> Invoke {
        Invoke {
            id: "inv_1".into(),
            kind: Kind::Http,
            method: "POST".into(),
            path: "/p%20q?a=1&a=2&b=%C3%BC".into(),
            headers: headers
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            deadline_ms: 1000.0,
        }
    }

    #[test]
    fn a_request_becomes_a_format_2_event() {
        let sent = [
            ("x-a", "1"),
            ("x-a", "2"),
            ("cookie", "k=v; l=w"),
            ("host", "f.example.org"),
        ];
        let value = event(&invoke(&sent), b"hi");
        assert_eq!(value["rawPath"], "/p%20q");
        assert_eq!(value["rawQueryString"], "a=1&a=2&b=%C3%BC");
        assert_eq!(
            value["queryStringParameters"],
            json!({"a": "1,2", "b": "ü"})
        );
        assert_eq!(value["headers"]["x-a"], "1, 2");
        assert_eq!(value["cookies"], json!(["k=v", "l=w"]));
        assert_eq!(value["requestContext"]["http"]["method"], "POST");
        assert_eq!(value["requestContext"]["domainPrefix"], "f");
        assert_eq!(
            (&value["body"], &value["isBase64Encoded"]),
            (&json!("hi"), &json!(false))
        );
    }

    #[test]
    fn a_body_that_is_no_text_is_base64() {
        let binary = event(&invoke(&[]), &[0xff, 0]);
        assert_eq!(
            (&binary["body"], &binary["isBase64Encoded"]),
            (&json!("/wA="), &json!(true))
        );
        let image = event(&invoke(&[("content-type", "image/png")]), b"ab");
        assert_eq!(image["isBase64Encoded"], true);
        assert!(event(&invoke(&[]), b"").get("body").is_none());
    }

    #[test]
    fn a_response_object_is_unfolded() {
        let output = br#"{"statusCode":201,"headers":{"X-N":1},"cookies":["a=b"],"body":"aGk=","isBase64Encoded":true}"#;
        let (head, body) = answer(output.to_vec()).unwrap();
        assert_eq!((head.status, body), (201, b"hi".to_vec()));
        assert!(head.headers.contains(&("x-n".into(), "1".into())));
        assert!(head.headers.contains(&("set-cookie".into(), "a=b".into())));
    }

    #[test]
    fn other_output_is_answered_as_it_is() {
        let (json_head, body) = answer(b"{\"a\": 1}\n".to_vec()).unwrap();
        assert_eq!(
            (json_head, body),
            (head(200, "application/json"), b"{\"a\": 1}\n".to_vec())
        );
        let (text_head, _) = answer(b"{not json".to_vec()).unwrap();
        assert_eq!(text_head, plain_head(b"text"));
        assert_eq!(
            plain_head(&[0xff, 0xfe]),
            head(200, "application/octet-stream")
        );
        assert_eq!(plain_head(&[b'a', 0xc3]), plain_head(b"a"));
    }

    #[test]
    fn broken_responses_are_the_functions_fault() {
        for output in [
            &br#"{"statusCode":99}"#[..],
            br#"{"statusCode":"ok"}"#,
            br#"{"statusCode":200,"body":"***","isBase64Encoded":true}"#,
        ] {
            assert!(answer(output.to_vec()).is_err());
        }
    }
}
