//! An operator written with kopf keeps its promises while it is killed, and while the server is. What is asserted is what
//! the server serves; the operator's log is shown only when the story fails.

use claw_e2e::{
    Cluster, Options,
    http::Http,
    kubectl::Background,
    need::{self, Need},
    python::python_of,
    wait,
};
use http::Method;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::script;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SHELVES: &str = "/apis/library.example.com/v1/namespaces/default/shelves";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FINALIZER: &str = "library.example.com/operator";

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_written_with_kopf_goes_on_over_kills_of_itself_and_of_the_server() {
    if !need::all("an_operator_written_with_kopf", &[Need::Python]) {
        return;
    }
    // With controllers, because what belongs to a shelf goes with it.
    let mut cluster = Cluster::start(Options::up(1).with(&["--hollow"]));
    let library = Library(Http::admin(&cluster));
    let operator = start(&cluster, "listed");
    library.learns_a_kind_while_it_runs().await;
    library.fills_changes_and_heals().await;
    library.is_interrupted_in_the_middle().await;

    drop(operator);
    library.waits_for_its_operator().await;
    // The second time without a list: the watch itself begins with what there is.
    let mut operator = start(&cluster, "streamed");
    library.catches_up().await;

    let dusted = library.counted("dusted").await;
    cluster.kill();
    cluster.restart();
    let library = Library(Http::admin(&cluster));
    library.goes_on_after(dusted).await;
    library.closes().await;
    assert_eq!(operator.exit_code(), None, "the operator runs: {}", operator.output());
}

fn start(cluster: &Cluster, lists: &str) -> Background {
    let file = cluster.scratch().join(format!("operator-{lists}.log"));
    let mut kopf = python_of(cluster);
    kopf.args(["-m", "kopf", "run", "--namespace", "default"]);
    Background::start(kopf.arg(script("kopf_operator.py")).env("LISTS", lists), &file)
}

/// What the server says of shelves and books. Each step is a promise of the operator.
struct Library(Http);

impl Library {
    async fn learns_a_kind_while_it_runs(&self) {
        // Once it looks after this, it has found that there are no shelves yet.
        self.add(MAPS, &stray("stray")).await;
        self.until("it runs", &format!("{MAPS}/stray"), is_stamped).await;
        let text = std::fs::read_to_string(script("shelves.yaml")).expect("it lies beside this file");
        let kind = Value::deserialize(serde_yaml::Deserializer::from_str(&text)).expect("it is YAML");
        self.add(DEFINITIONS, &kind).await;
        let path = format!("{DEFINITIONS}/shelves.library.example.com");
        self.until("shelves are served", &path, |kind| {
            let mut conditions = kind["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|it| it["type"] == "Established" && it["status"] == "True")
        })
        .await;
    }

    async fn fills_changes_and_heals(&self) {
        self.add(SHELVES, &shelf("calm", &json!({"books": 3, "sticky": true}))).await;
        self.add(SHELVES, &shelf("doomed", &json!({"books": 2}))).await;
        self.has_books("calm", 3).await;
        self.has_books("doomed", 2).await;
        let calm = self.until_shelf("calm", |calm| calm["status"]["fill"]["books"] == 3).await;
        assert_eq!(calm["metadata"]["finalizers"], json!([FINALIZER]));
        let ledger = self.until("it is opened", &format!("{MAPS}/calm-ledger"), |_| true).await;
        assert_eq!(ledger["data"], json!({"opened": "1", "tries": "2"}), "a failed step is done once more");
        self.has_an_event(&calm).await;
        self.until_shelf("calm", |calm| {
            let count = |name| calm["status"][name].as_u64().unwrap_or(0);
            count("ticks") >= 2 && count("dusted") >= 2
        })
        .await;

        self.patch("calm", &json!({"spec": {"books": 5}})).await;
        self.has_books("calm", 5).await;
        let calm = self.until_shelf("calm", |calm| calm["status"]["refilled"] == 5).await;
        assert_eq!(calm["metadata"]["generation"], 2, "no status moves it: {calm}");

        let path = format!("{MAPS}/calm-book-1");
        let taken = self.read(&path).await;
        self.delete(&path).await;
        let uid = |book: &Value| book["metadata"]["uid"].clone();
        self.until("the book is back", &path, |book| uid(book) != uid(&taken)).await;
        self.has_books("calm", 5).await;
    }

    async fn has_an_event(&self, shelf: &Value) {
        let uid = shelf["metadata"]["uid"].as_str().expect("a uid");
        let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid%3D{uid}");
        self.until("an event tells of it", &path, |events| {
            let mut events = events["items"].as_array().into_iter().flatten();
            events.any(|event| event["reason"] == "Filled" && event["message"] == "3 books")
        })
        .await;
    }

    /// Leaves it in a handler of which one half is done.
    async fn is_interrupted_in_the_middle(&self) {
        self.add(SHELVES, &shelf("gated", &json!({"books": 6, "gate": "gate"}))).await;
        self.has_books("gated", 3).await;
    }

    /// While nobody acts on them, wishes are kept, and what is to be deleted is held.
    async fn waits_for_its_operator(&self) {
        self.delete(&format!("{SHELVES}/doomed")).await;
        let doomed = self.read(&format!("{SHELVES}/doomed")).await;
        assert!(doomed["metadata"]["deletionTimestamp"].is_string(), "{doomed}");
        self.patch("calm", &json!({"spec": {"books": 2}})).await;
        self.add(SHELVES, &shelf("late", &json!({}))).await;
        self.add(MAPS, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gate"}})).await;
        self.has_books("calm", 5).await;
        self.has_books("gated", 3).await;
    }

    async fn catches_up(&self) {
        self.is_gone("doomed", 2).await;
        self.has_books("calm", 2).await;
        self.until_shelf("calm", |calm| calm["status"]["refilled"] == 2 && calm["status"]["resumed"] == 1)
            .await;
        self.has_books("late", 1).await;
        self.has_books("gated", 6).await;
        self.until_shelf("gated", |gated| gated["status"]["fill"]["books"] == 6).await;
        let ledger = self.read(&format!("{MAPS}/gated-ledger")).await;
        assert_eq!(
            ledger["data"]["opened"], "1",
            "the step before the one that was cut short is not repeated"
        );
    }

    /// What a daemon has counted in a status.
    async fn counted(&self, name: &str) -> u64 {
        let calm = self.until_shelf("calm", |calm| calm["status"][name].is_u64()).await;
        calm["status"][name].as_u64().expect("a number, as was asked")
    }

    /// The server was away: the daemon counts on, and every kind of event still arrives.
    async fn goes_on_after(&self, dusted: u64) {
        self.until_shelf("calm", |calm| calm["status"]["dusted"].as_u64() > Some(dusted + 1)).await;
        self.patch("calm", &json!({"spec": {"books": 4}})).await;
        self.has_books("calm", 4).await;
        self.add(SHELVES, &shelf("after", &json!({"books": 2}))).await;
        self.has_books("after", 2).await;
        self.delete(&format!("{SHELVES}/late")).await;
        self.is_gone("late", 1).await;
    }

    /// The kind itself goes, with all that there is of it; and the operator goes on without.
    async fn closes(&self) {
        self.delete(&format!("{DEFINITIONS}/shelves.library.example.com")).await;
        for (name, books) in [("calm", 4), ("gated", 6), ("after", 2)] {
            self.is_gone(name, books).await;
        }
        self.until_code(404, SHELVES).await;
        self.add(MAPS, &stray("another")).await;
        self.until("it looks after books as before", &format!("{MAPS}/another"), is_stamped).await;
    }

    /// Waits until a shelf holds its first `count` books and no other, each one stamped and its own.
    async fn has_books(&self, name: &str, count: u64) {
        let shelf = self.read(&format!("{SHELVES}/{name}")).await;
        let mut wanted: Vec<_> = (0..count).map(|number| number.to_string()).collect();
        wanted.sort();
        let path = format!("{MAPS}?labelSelector=library.example.com%2Fshelf%3D{name}");
        self.until(&format!("{name} has {count} books"), &path, |books| {
            let books = books["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut numbers: Vec<_> = books.iter().filter_map(|book| book["data"]["n"].as_str()).collect();
            numbers.sort_unstable();
            let owner = |book: &Value| book["metadata"]["ownerReferences"][0]["uid"].clone();
            numbers == wanted
                && books.iter().all(|book| is_stamped(book) && owner(book) == shelf["metadata"]["uid"])
        })
        .await;
    }

    /// Waits until a shelf is gone, with its books, and was taken leave of.
    async fn is_gone(&self, name: &str, books: u64) {
        self.until_code(404, &format!("{SHELVES}/{name}")).await;
        let farewell = self.read(&format!("{MAPS}/{name}-farewell")).await;
        assert_eq!(farewell["data"]["books"], books.to_string(), "of {name}");
        let path = format!("{MAPS}?labelSelector=library.example.com%2Fshelf%3D{name}");
        self.until(&format!("the books of {name} are gone"), &path, |list| list["items"] == json!([])).await;
    }

    async fn until_shelf(&self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until(&format!("shelf {name} is as it should be"), &format!("{SHELVES}/{name}"), holds).await
    }

    async fn until(&self, what: &str, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait::until_async(what, wait::SOON, || async {
            let seen = self.0.get(path).await.map_err(|error| error.to_string())?;
            if holds(&seen) { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    }

    async fn until_code(&self, code: u16, path: &str) {
        wait::until_async(&format!("{path} answers {code}"), wait::SOON, || async {
            let answer = self.0.ask(Method::GET, path, &[], "").await.map_err(|error| error.to_string())?;
            wait::check(answer.code == code, answer.text())
        })
        .await;
    }

    async fn read(&self, path: &str) -> Value {
        self.0.get(path).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn add(&self, path: &str, object: &Value) {
        self.0.post(path, object).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn patch(&self, name: &str, patch: &Value) {
        let headers = [("content-type", "application/merge-patch+json")];
        let path = format!("{SHELVES}/{name}");
        let answer = self.0.ask(Method::PATCH, &path, &headers, patch.to_string()).await;
        let answer = answer.expect("the server is up");
        assert_eq!(answer.code, 200, "{}", answer.text());
    }

    async fn delete(&self, path: &str) {
        let answer = self.0.ask(Method::DELETE, path, &[], "").await.expect("the server is up");
        assert_eq!(answer.code, 200, "{}", answer.text());
    }
}

fn shelf(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "library.example.com/v1", "kind": "Shelf", "metadata": {"name": name}, "spec": spec})
}

/// A book of no shelf.
fn stray(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"n": "0"},
        "metadata": {"name": name, "labels": {"library.example.com/shelf": "none"}}})
}

fn is_stamped(book: &Value) -> bool {
    book["metadata"]["annotations"]["stamped"] == "yes"
}
