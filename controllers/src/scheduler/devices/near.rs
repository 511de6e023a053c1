//! Which of some GPUs are close to each other. Pure.
//!
//! Links between GPUs count most, then memory on the same node of the host, then a PCIe root in common, where data goes from one to the
//! other without the host's memory. Slices say how many NVLinks a GPU has, not whom they lead to: machines that have some
//! have them between all. Of AMD's they name the hive, all of whose GPUs are linked.

/// Where a GPU is, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub pcie_root: Option<String>,
    pub numa_node: Option<i64>,
    /// Those of one have links to each other.
    pub fabric: Option<String>,
}

/// How close two are.
fn closeness(one: &Place, other: &Place) -> i64 {
    let linked = one.fabric.is_some() && one.fabric == other.fabric;
    let same_memory = one.numa_node.is_some() && one.numa_node == other.numa_node;
    let same_root = one.pcie_root.is_some() && one.pcie_root == other.pcie_root;
    4 * i64::from(linked) + 2 * i64::from(same_memory) + i64::from(same_root)
}

/// All of them by their numbers: first the `count` that are closest to each other, then the rest as they come. Among groups
/// that are equally close it takes the one whose going leaves the others closest, so that large groups stay whole.
pub fn nearest(places: &[Place], count: usize) -> Vec<usize> {
    let groups = (0..places.len()).map(|first| grow(places, first, count));
    let best = groups.max_by_key(|group| {
        let first = group.first().copied().unwrap_or_default();
        (inside(places, group), -outside(places, group), std::cmp::Reverse(first))
    });
    let mut chosen = best.unwrap_or_default();
    chosen.sort_unstable();
    let rest: Vec<usize> = (0..places.len()).filter(|one| !chosen.contains(one)).collect();
    chosen.extend(rest);
    chosen
}

/// A group that begins with one and takes the closest again and again.
fn grow(places: &[Place], first: usize, count: usize) -> Vec<usize> {
    let mut group = vec![first];
    while group.len() < count.min(places.len()) {
        let others = (0..places.len()).filter(|one| !group.contains(one));
        let next = others.max_by_key(|one| {
            let to_group: i64 = group.iter().map(|member| closeness(&places[*member], &places[*one])).sum();
            let to_all: i64 = places.iter().map(|other| closeness(other, &places[*one])).sum();
            (to_group, -to_all, std::cmp::Reverse(*one))
        });
        let Some(next) = next else { break };
        group.push(next);
    }
    group
}

fn inside(places: &[Place], group: &[usize]) -> i64 {
    let pairs =
        group.iter().enumerate().flat_map(|(at, one)| group[at + 1..].iter().map(move |two| (one, two)));
    pairs.map(|(one, two)| closeness(&places[*one], &places[*two])).sum()
}

fn outside(places: &[Place], group: &[usize]) -> i64 {
    let rest = (0..places.len()).filter(|one| !group.contains(one));
    rest.flat_map(|one| group.iter().map(move |member| closeness(&places[*member], &places[one]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(root: &str, numa_node: i64) -> Place {
        Place { pcie_root: Some(root.to_owned()), numa_node: Some(numa_node), fabric: None }
    }

    #[test]
    fn those_under_one_root_come_first_then_those_of_one_memory() {
        let places = [at("a", 0), at("b", 1), at("c", 0), at("b", 1)];
        assert_eq!(nearest(&places, 2), [1, 3, 0, 2]);
        let places = [at("a", 0), at("b", 1), at("c", 0)];
        assert_eq!(nearest(&places, 2), [0, 2, 1]);
    }

    #[test]
    fn links_count_more_than_anything_else() {
        let linked = |root: &str, numa_node, fabric: &str| {
            let fabric = Some(fabric.to_owned());
            Place { fabric, ..at(root, numa_node) }
        };
        let places = [at("a", 0), at("a", 0), linked("b", 0, "x"), linked("c", 1, "x")];
        assert_eq!(nearest(&places, 2), [2, 3, 0, 1]);
        let hives = [linked("a", 0, "x"), linked("a", 0, "y"), linked("b", 1, "y"), linked("c", 1, "x")];
        assert_eq!(nearest(&hives, 2), [0, 3, 1, 2], "another fabric is no link");
    }

    #[test]
    fn one_alone_is_taken_where_it_breaks_the_least() {
        let places = [at("a", 0), at("a", 0), at("b", 1)];
        assert_eq!(nearest(&places, 1), [2, 0, 1]);
        let places = [at("a", 0), at("a", 0), at("a", 0), at("b", 1), at("b", 1)];
        assert_eq!(nearest(&places, 2), [3, 4, 0, 1, 2], "the three stay together");
    }

    #[test]
    fn what_nothing_is_known_of_is_taken_in_order() {
        assert_eq!(nearest(&[Place::default(), Place::default(), Place::default()], 2), [0, 1, 2]);
        assert_eq!(nearest(&[Place::default()], 3), [0]);
        assert!(nearest(&[], 1).is_empty());
    }
}
