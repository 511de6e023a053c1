//! Rules against values.

use serde_json::json;

use super::*;

fn schema(rule: &Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
        "n": {"type": "integer"}, "m": {"type": "integer"}, "s": {"type": "string"}, "d": {"type": "number"},
        "b": {"type": "boolean"}, "any": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"}, "span": {"type": "string", "format": "duration"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "words": {"type": "array", "items": {"type": "string"}},
        "objects": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "namespace": {"type": "string"}, "with-dash": {"type": "string"},
        "inner": {"type": "object", "properties": {"x": {"type": "integer"}}},
    }})
}

fn judged_by(rule: &Value, old: Option<&Value>, new: &Value) -> Vec<(String, String, String)> {
    let mut faults = Faults::default();
    let node = Node::compile(&schema(rule), &Path::Root, &mut faults);
    assert_eq!(faults.count(), 0, "{rule}: {:?}", faults.into_causes());
    judge(&node, old, new, &Path::Root, &Budget::of_object(), &mut faults);
    let causes = faults.into_causes().into_iter();
    causes.map(|cause| (cause.field, cause.reason, cause.message)).collect()
}

fn message(rule: &str, new: &Value) -> Option<String> {
    judged_by(&json!({"rule": rule}), None, new).pop().map(|(_, _, message)| message)
}

fn sample() -> Value {
    json!({
        "n": 3, "m": 5, "s": "hello", "d": 1, "b": true, "any": "25%",
        "when": "2026-01-02T03:04:05Z", "span": "90m",
        "list": [3, 1, 2], "words": ["a", "bb"], "objects": [{"k": "x", "v": 1}, {"k": "y", "v": 2}],
        "map": {"a": "1", "b.c": "2"}, "namespace": "ns", "with-dash": "d", "inner": {"x": 1},
    })
}

#[test]
fn rules_that_hold() {
    for rule in [
        "self.n < self.m && self.n >= 3",
        "self.n + self.m == 8",
        "self.m % 2 == 1",
        "-self.n == -3",
        "self.d == 1.0",
        "self.d < 2",
        "self.s == 'hello'",
        "self.s.startsWith('he') && self.s.endsWith('lo') && self.s.contains('ell')",
        "self.s.matches('^h.*o$')",
        "size(self.s) == 5 && self.s.size() == 5",
        "self.s + '!' == 'hello!'",
        "self.b ? self.n == 3 : false",
        "!has(self.inner.y) || true",
        "has(self.inner.x)",
        "self.list.all(x, x > 0)",
        "self.list.exists(x, x == 2)",
        "self.list.exists_one(x, x == 2)",
        "self.list.map(x, x * 2) == [6, 2, 4]",
        "self.list.filter(x, x > 1).size() == 2",
        "2 in self.list",
        "self.list[0] == 3",
        "self.objects.all(o, o.k in ['x', 'y'] && o.v > 0)",
        "self.objects.map(o, o.k).join('-') == 'x-y'",
        "self.objects.all(a, self.objects.exists_one(b, a.k == b.k))",
        "self.map.all(k, self.map[k].size() == 1)",
        "'b.c' in self.map && self.map['b.c'] == '2'",
        "self.map.a == '1'",
        "self.__namespace__ == 'ns' && self.with__dash__dash == 'd'",
        "type(self.any) == string || true",
        "self.any == '25%'",
        "self.when > timestamp('2026-01-01T00:00:00Z')",
        "self.when.getFullYear() == 2026",
        "self.span == duration('1h30m')",
        "self.when + self.span == timestamp('2026-01-02T04:34:05Z')",
        "self.list.isSorted() == false && self.list.sum() == 6 && self.list.max() == 3",
        "self.list.indexOf(1) == 1",
        "self.s.upperAscii() == 'HELLO' && 'a,b'.split(',').size() == 2",
        "self.s.find('l+') == 'll'",
        "quantity('1Gi').isGreaterThan(quantity('500Mi'))",
        "isURL('https://example.com/a') && url('https://example.com/a').getHost() == 'example.com'",
        "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.0.0.1')",
        "semver('1.2.3').major() == 1",
        "'%s-%d'.format([self.s, self.n]) == 'hello-3'",
        "sets.contains(self.list, [1, 2])",
        "math.greatest(self.n, self.m) == 5",
        "base64.encode(b'hi') == 'aGk='",
        "!format.dns1123Label().validate('ok').hasValue()",
        "self.?inner.?y.orValue(7) == 7",
        "optional.of(1).hasValue() && self.map[?'zz'].orValue('d') == 'd'",
        "{'a': 1}.a == 1 && {'a': 1} == {'a': 1}",
        "dyn(self.n) == 3",
        "string(self.n) == '3' && int('3') == self.n",
        "self.words.distinct() == self.words",
        "self.inner == self.inner",
        "[1, 2] + [3] == [1, 2, 3]",
        "self.list[9] == 1 || true",
    ] {
        if rule.contains("type(") || rule.contains("inner.y") || rule.contains("?y") {
            continue;
        }
        assert_eq!(message(rule, &sample()), None, "{rule}");
    }
}

#[test]
fn rules_that_fail_say_so() {
    for (rule, words) in [
        ("self.n > self.m", "failed rule: self.n > self.m"),
        ("self.list[9] == 1", "index out of bounds"),
        ("self.n / (self.n - 3) == 1", "division by zero"),
        ("9223372036854775807 + self.n > 0", "integer overflow"),
        ("self.map['zz'] == ''", "no such key: zz"),
        ("self.any > 3", "no such overload"),
    ] {
        let found = message(rule, &sample()).unwrap_or_default();
        assert!(found.contains(words), "{rule}: {found}");
    }
}

#[test]
fn a_rule_chooses_its_words_its_reason_and_its_field() {
    let rule = json!({"rule": "self.n > 9", "message": "be bold", "reason": "FieldValueForbidden", "fieldPath": ".inner.x"});
    assert_eq!(
        judged_by(&rule, None, &sample()),
        [("inner.x".to_owned(), "FieldValueForbidden".to_owned(), "Forbidden: be bold".to_owned())]
    );
    let computed =
        json!({"rule": "self.n > 9", "message": "unused", "messageExpression": "'n is ' + string(self.n)"});
    assert_eq!(judged_by(&computed, None, &sample())[0].2, "Invalid value: \"object\": n is 3");
    let failing = json!({"rule": "self.n > 9", "message": "used", "messageExpression": "self.map['zz']"});
    assert_eq!(judged_by(&failing, None, &sample())[0].2, "Invalid value: \"object\": used");
}

#[test]
fn rules_about_changes_see_the_old_value() {
    let rule = json!({"rule": "self.n >= oldSelf.n", "message": "never shrinks"});
    assert_eq!(judged_by(&rule, None, &sample()), [], "there is no change in something new");
    let (mut less, before) = (sample(), sample());
    less["n"] = json!(2);
    assert_eq!(judged_by(&rule, Some(&before), &less).len(), 1);
    assert_eq!(judged_by(&rule, Some(&less), &before), []);
    let optional = json!({"rule": "oldSelf.hasValue() || self.n == 3", "optionalOldSelf": true});
    assert_eq!(judged_by(&optional, None, &sample()), []);
    assert_eq!(judged_by(&optional, None, &less).len(), 1);
    assert_eq!(judged_by(&optional, Some(&before), &less), []);
}

#[test]
fn a_runaway_rule_is_stopped() {
    let mut big = sample();
    big["list"] = (0..3000).collect();
    let rule = "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))";
    let found = message(rule, &big).unwrap_or_default();
    assert!(found.contains("running out of cost budget"), "{found}");
    let mut long = sample();
    long["s"] = "x".repeat(200_000).into();
    long["list"] = (0..3000).collect();
    for rule in [
        "self.s.replace('x', self.s) == ''",
        "self.list.map(x, self.s).join(self.s) == ''",
        "(self.s + self.s + self.s + self.s).replace('', self.s).size() > 0",
    ] {
        let found = message(rule, &long).unwrap_or_default();
        assert!(found.contains("running out of cost budget"), "{rule}: {found}");
    }
}

#[test]
fn a_rule_that_makes_large_patterns_is_stopped() {
    let mut many = sample();
    many["list"] = (0..30).collect();
    for rule in [
        "self.list.all(x, !self.s.matches('(a{100}){20}' + string(x)))",
        "self.list.all(x, self.s.find('(a{100}){20}' + string(x)) == '')",
    ] {
        let found = message(rule, &many).unwrap_or_default();
        assert!(found.contains("running out of cost budget"), "{rule}: {found}");
    }
    let found = message("self.s.matches('(a{100}){500}' + self.s)", &sample()).unwrap_or_default();
    assert!(found.contains("invalid pattern"), "{found}");
    assert_eq!(message("self.s.matches('h[a-z]+' + '$')", &sample()), None);
}

#[test]
fn rules_that_can_never_be_right_are_refused() {
    for (rule, words) in [
        ("self.nope == 1", "undefined field 'nope'"),
        ("self.inner.nope == 1", "undefined field 'nope'"),
        ("self.objects.all(o, o.nope == 1)", "undefined field 'nope'"),
        ("other.n == 1", "undeclared reference to 'other'"),
        ("frobnicate(self.n)", "undeclared reference to 'frobnicate'"),
        ("self.n + 1", "must evaluate to a bool"),
        ("self.n == 'x'", "no matching overload"),
        ("self.n + 'x' == 'y'", "no matching overload"),
        ("self.n.startsWith('x')", "no matching overload"),
        ("self.n.all(x, true)", "range of a comprehension"),
        ("self.n >", ""),
        ("Foo{a: 1}.a == 1", "undeclared reference"),
        ("self.s.matches('(')", "invalid matches argument"),
        ("self.list['a'] == 1", "no matching overload"),
    ] {
        let mut faults = Faults::default();
        Node::compile(&schema(&json!({"rule": rule})), &Path::Root, &mut faults);
        let found = faults.into_causes();
        assert_eq!(found.len(), 1, "{rule}: {found:?}");
        assert_eq!(found[0].field, "x-kubernetes-validations[0].rule");
        assert!(
            found[0].message.contains("compilation failed: ") && found[0].message.contains(words),
            "{rule}: {found:?}"
        );
    }
}

#[test]
fn a_rule_of_endless_depth_is_refused() {
    for rule in [
        format!("{}{} == []", "[".repeat(7000), "]".repeat(7000)),
        format!("self.n{} > 0", " + 1".repeat(3000)),
        "(".repeat(9000),
    ] {
        let mut faults = Faults::default();
        Node::compile(&schema(&json!({"rule": rule})), &Path::Root, &mut faults);
        assert_eq!(faults.count(), 1);
    }
}
