//! An object without what nobody reads: most of a pod is what its containers
//! are given, and most of the rest is who has written which field.
//!
//! Asked by `wire` for every object of a list or a watch. What is left out here
//! is never built at all: a hundred thousand pods are read at once.
//!
//! Pure.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Who wrote what; of every object.
const EVERYWHERE: &str = "managedFields";

/// Of pods: nothing of it says who they are or where they listen.
const OF_PODS: [&str; 13] = [
    "affinity",
    "args",
    "command",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "env",
    "envFrom",
    "initContainerStatuses",
    "resources",
    "securityContext",
    "tolerations",
    "volumeMounts",
    "volumes",
];

/// What people name themselves: no field of ours, whatever it is called.
const NAMED: [&str; 3] = ["annotations", "labels", "matchLabels"];

/// Reads a value, and leaves out what is not read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pruned {
    pub(super) is_pod: bool,
}

impl Pruned {
    /// # Errors
    /// When it is no JSON.
    pub(super) fn read(self, text: &[u8]) -> serde_json::Result<Value> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = self.deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    fn leaves_out(self, field: &str) -> bool {
        field == EVERYWHERE || self.is_pod && OF_PODS.contains(&field)
    }
}

impl<'de> DeserializeSeed<'de> for Pruned {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pruned {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(field) = fields.next_key::<String>()? {
            if self.leaves_out(&field) {
                fields.next_value::<IgnoredAny>()?;
            } else if NAMED.contains(&field.as_str()) {
                let value: Value = fields.next_value()?;
                all.insert(field, value);
            } else {
                let value = fields.next_value_seed(self)?;
                all.insert(field, value);
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pruned(value: &Value, is_pod: bool) -> Value {
        Pruned { is_pod }
            .read(value.to_string().as_bytes())
            .unwrap()
    }

    #[test]
    fn what_nobody_reads_is_left_out_and_what_people_name_stays() {
        let metadata = json!({
            "name": "web-0", "labels": {"env": "live", "resources": "few"}, "annotations": {"volumes": "none"},
        });
        let mut object = json!({"metadata": metadata, "spec": {
            "containers": [{"name": "app", "ports": [{"containerPort": 80}], "weight": 1.5, "small": -1}],
            "hostNetwork": true, "nothing": null, "selector": {"matchLabels": {"command": "x"}},
        }});
        let expected = object.clone();
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
        assert_eq!(pruned(&object, false), expected);
        let container = &mut object["spec"]["containers"][0];
        container["env"] = json!([{"name": "A", "value": "1"}]);
        container["volumeMounts"] = json!([]);
        object["spec"]["volumes"] = json!([{"name": "v"}]);
        assert_eq!(pruned(&object, true), expected);
        let kept = pruned(&object, false);
        assert!(
            kept["spec"]["volumes"].is_array(),
            "of other kinds every field counts"
        );
    }
}
