//! Reads parts of an object from its bytes. The rest is skipped without being taken apart, which is several times faster.
//!
//! Must never know: what the parts are for.

mod cursor;

use serde_json::{Map, Value};

use self::cursor::Cursor;

/// Which parts to read.
#[derive(Debug)]
pub struct Pick {
    root: Node,
}

/// How much of a value is read.
#[derive(Debug)]
enum Node {
    /// All of it.
    Whole,
    /// The keys of an object or the places of a list, with null in them.
    Outline,
    /// Some members of an object, or of each object in a list.
    Members(Vec<(Box<str>, Node)>),
}

impl Pick {
    /// Everything.
    pub fn everything() -> Self {
        Self { root: Node::Whole }
    }

    /// The values at these paths. A path leads through lists to their items: `spec.containers.name`. One that ends in
    /// `.*` leads to the keys of an object or the number of items in a list: `data.*`.
    pub fn paths<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut root = Node::Members(Vec::new());
        paths.into_iter().for_each(|path| root.add(Some(path)));
        Self { root }
    }

    /// Reads the parts of an object. What is not there, or not of the shape that a path needs, reads as null.
    ///
    /// # Errors
    /// When the bytes are not JSON.
    pub fn read(&self, json: &[u8]) -> serde_json::Result<Value> {
        self.root.read(&mut Cursor::new(json))
    }

    /// Reads the parts of an object, and the JSON of one member as it stands; `null` where there is none.
    ///
    /// # Errors
    /// When the bytes are not JSON.
    pub fn read_beside<'a>(&self, json: &'a [u8], member: &str) -> serde_json::Result<(Value, &'a str)> {
        let mut text = "null";
        let mut json = Cursor::new(json);
        let value = match json.peek() {
            Some(b'{') => self.root.object(&mut json, Some((member, &mut text)))?,
            _ => self.root.read(&mut json)?,
        };
        Ok((value, text))
    }
}

impl Node {
    fn add(&mut self, path: Option<&str>) {
        match (&mut *self, path) {
            (Self::Whole, _) | (Self::Outline, Some("*")) => {}
            (Self::Members(members), Some("*")) if members.is_empty() => *self = Self::Outline,
            // All keys and the content of some: more than that does no harm.
            (_, None | Some("*")) | (Self::Outline, Some(_)) => *self = Self::Whole,
            (Self::Members(members), Some(path)) => {
                let (head, rest) =
                    path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
                let at = members.iter().position(|(name, _)| **name == *head).unwrap_or_else(|| {
                    members.push((head.into(), Self::Members(Vec::new())));
                    members.len() - 1
                });
                members[at].1.add(rest);
            }
        }
    }

    /// How a member is read, if it is.
    fn member(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Whole | Self::Outline => Some(self),
            Self::Members(members) => members.iter().find(|(name, _)| **name == *key).map(|(_, node)| node),
        }
    }
}

impl Node {
    /// Reads what it wants of the value at hand, and passes over the rest.
    fn read(&self, json: &mut Cursor<'_>) -> serde_json::Result<Value> {
        match (self, json.peek()) {
            (Self::Whole, _) => json.value(),
            (_, Some(b'{')) => self.object(json, None),
            (_, Some(b'[')) => self.list(json),
            // A scalar where a path goes on.
            _ => json.skip().map(|_| Value::Null),
        }
    }

    fn list(&self, json: &mut Cursor<'_>) -> serde_json::Result<Value> {
        let mut items = Vec::new();
        json.enter()?;
        while json.more(b']')? {
            items.push(match self {
                Self::Outline => json.skip().map(|_| Value::Null)?,
                _ => self.read(json)?,
            });
        }
        json.leave();
        Ok(items.into())
    }

    /// Reads an object. The text of a member is kept, too, if it is the one asked for.
    fn object<'a>(
        &self,
        json: &mut Cursor<'a>,
        mut beside: Option<(&str, &mut &'a str)>,
    ) -> serde_json::Result<Value> {
        let mut members = Map::new();
        json.enter()?;
        while json.more(b'}')? {
            let key = json.key()?;
            let start = json.at_value();
            match (self, self.member(&key)) {
                (_, None) => drop(json.skip()?),
                (Self::Outline, _) => {
                    json.skip()?;
                    members.insert(String::from(&*key), Value::Null);
                }
                (_, Some(node)) => drop(members.insert(String::from(&*key), node.read(json)?)),
            }
            if let Some((member, text)) = &mut beside
                && **member == *key
            {
                **text = json.text_since(start)?;
            }
        }
        json.leave();
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pick<const N: usize>(paths: [&str; N], object: &Value) -> Value {
        Pick::paths(paths).read(object.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn only_what_the_paths_lead_to_is_read() {
        let object = json!({
            "metadata": {"name": "x", "labels": {"a": "b"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}, {"name": "d"}, 7]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready"}]},
        });
        assert_eq!(
            pick(["metadata.name", "spec.containers.name", "status", "absent.too"], &object),
            json!({
                "metadata": {"name": "x"},
                "spec": {"containers": [{"name": "c"}, {"name": "d"}, null]},
                "status": object["status"],
            })
        );
        assert_eq!(Pick::everything().read(object.to_string().as_bytes()).unwrap(), object);
    }

    #[test]
    fn an_outline_has_keys_and_places_only() {
        let object = json!({"data": {"a": "long", "b": {"c": 1}}, "list": [{"x": 1}, "y"], "text": "t"});
        assert_eq!(
            pick(["data.*", "list.*", "text.*"], &object),
            json!({"data": {"a": null, "b": null}, "list": [null, null], "text": null})
        );
    }

    #[test]
    fn paths_that_meet_read_all_that_each_of_them_wants() {
        let object = json!({"a": {"b": {"c": 1, "d": 2}, "e": 3}});
        assert_eq!(pick(["a.b.c", "a.e"], &object), json!({"a": {"b": {"c": 1}, "e": 3}}));
        for paths in [["a", "a.b"], ["a.b", "a"], ["a.*", "a.b"], ["a.b", "a.*"]] {
            assert_eq!(pick(paths, &object), object, "{paths:?}");
        }
        assert_eq!(pick(["a.*", "a.*"], &object), json!({"a": {"b": null, "e": null}}));
    }

    #[test]
    fn odd_shapes_read_as_null() {
        assert_eq!(pick(["a.b", "c.d"], &json!({"a": "text", "c": null})), json!({"a": null, "c": null}));
        assert_eq!(pick(["a"], &json!([{"a": 1, "b": 2}])), json!([{"a": 1}]));
        assert_eq!(pick(["a"], &json!(5)), Value::Null);
        assert!(Pick::paths(["a"]).read(b"{\"a\":").is_err());
    }

    #[test]
    fn the_text_of_a_member_stands_as_it_is() {
        let json = br#"{"data":{"x":"y"},"metadata": {"name" : "a", "uid":"u"} ,"z":1}"#;
        for (pick, expected) in [
            (Pick::paths(["metadata.name"]), json!({"metadata": {"name": "a"}})),
            (Pick::paths(["z"]), json!({"z": 1})),
            (Pick::everything(), serde_json::from_slice(json).unwrap()),
        ] {
            let (value, text) = pick.read_beside(json, "metadata").unwrap();
            assert_eq!((value, text), (expected, r#"{"name" : "a", "uid":"u"}"#));
        }
        assert_eq!(Pick::paths(["z"]).read_beside(b"{}", "metadata").unwrap(), (json!({}), "null"));
    }
}
