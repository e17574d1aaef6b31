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

/// Of pods, of their lists and of what a watch says: all that says who they are,
/// where they listen and how they fare.
const OF_PODS: [&str; 38] = [
    "annotations",
    "code",
    "conditions",
    "containerPort",
    "containers",
    "continue",
    "deletionTimestamp",
    "grpc",
    "hostNetwork",
    "httpGet",
    "initContainers",
    "ip",
    "items",
    "labels",
    "livenessProbe",
    "message",
    "metadata",
    "name",
    "namespace",
    "nodeName",
    "object",
    "path",
    "phase",
    "podIP",
    "podIPs",
    "port",
    "ports",
    "protocol",
    "readinessProbe",
    "resourceVersion",
    "restartPolicy",
    "serviceAccountName",
    "spec",
    "startupProbe",
    "status",
    "tcpSocket",
    "type",
    "uid",
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

    fn field(self, name: &str) -> Field {
        let is_read = match self.is_pod {
            true => OF_PODS.binary_search(&name).is_ok(),
            false => name != EVERYWHERE,
        };
        match is_read {
            false => Field::LeftOut,
            true if NAMED.contains(&name) => Field::Named(name.to_owned()),
            true => Field::Read(name.to_owned()),
        }
    }
}

/// What becomes of a field. Of one that is left out not even the name is copied.
enum Field {
    LeftOut,
    /// With everything in it.
    Named(String),
    Read(String),
}

/// Reads the name of a field.
struct Naming(Pruned);

impl<'de> DeserializeSeed<'de> for Naming {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Naming {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
        Ok(self.0.field(name))
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
        while let Some(field) = fields.next_key_seed(Naming(self))? {
            match field {
                Field::LeftOut => drop(fields.next_value::<IgnoredAny>()?),
                Field::Named(name) => drop(all.insert(name, fields.next_value()?)),
                Field::Read(name) => drop(all.insert(name, fields.next_value_seed(self)?)),
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
            "containers": [{"name": "app", "ports": [{"containerPort": 80, "name": "http"}]}],
            "hostNetwork": true,
        }});
        let expected = object.clone();
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
        assert_eq!(pruned(&object, false), expected);
        let container = &mut object["spec"]["containers"][0];
        container["env"] = json!([{"name": "A", "value": "1"}]);
        container["volumeMounts"] = json!([]);
        object["spec"]["volumes"] = json!([{"name": "v"}]);
        object["spec"]["of a newer API server"] = json!({"name": "v"});
        assert_eq!(pruned(&object, true), expected);
        let kept = pruned(&object, false);
        assert!(
            kept["spec"]["volumes"].is_array(),
            "of other kinds every field counts"
        );
    }

    #[test]
    fn values_of_every_form_stay_what_they_are() {
        let object = json!({"spec": {
            "weight": 1.5, "small": -1, "large": 1, "yes": true, "nothing": null, "a \"quoted\" one": "\n",
            "selector": {"matchLabels": {"managedFields": "x"}},
        }});
        assert_eq!(pruned(&object, false), object);
    }

    #[test]
    fn fields_are_looked_up_in_order() {
        assert!(OF_PODS.is_sorted());
    }
}
