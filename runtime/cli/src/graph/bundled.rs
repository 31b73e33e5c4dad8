//! The graph that comes with the program: Debian's package dependency graph. It is part of the executable, so the
//! demo needs no file; how the data came about, and how to make it anew, is in examples/data/README.md.

use super::{Graph, GraphError, Labels, codec};

static FILE: &[u8] = include_bytes!("../../../../examples/data/debian-bookworm.graph");

/// The package dependency graph of Debian: an edge from each package to each package that it depends on.
pub(crate) fn bundled() -> Result<Graph, GraphError> {
    let graph = codec::decode(FILE).map_err(GraphError::Bundled)?;
    Ok(Graph {
        source: graph.source,
        node_count: graph.names.len(),
        edges: graph.edges,
        labels: Labels::Names(graph.names),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_graph_is_debians() {
        let graph = bundled().unwrap();
        assert!(graph.source.starts_with("Debian"), "{}", graph.source);
        assert!(graph.node_count > 60_000, "{} packages", graph.node_count);
        assert!(graph.edges.len() > 200_000, "{} dependencies", graph.edges.len());

        let find = |name: &str| -> u32 {
            let node = (0..graph.node_count).find(|&node| graph.label(node) == name);
            u32::try_from(node.unwrap()).unwrap()
        };
        let (bash, libc6) = (find("bash"), find("libc6"));
        assert!(graph.edges.binary_search(&(bash, libc6)).is_ok(), "bash depends on libc6");
        assert!(graph.edges.binary_search(&(libc6, bash)).is_err(), "libc6 does not depend on bash");
    }
}
