// Package images keeps for which architectures container images exist, from the reports of the nodes that use them. The scheduler
// reads it, so that a pod is not placed where its image does not run.
//
// Nothing of it is stored: a hub that has started gets the reports again with the next sessions. A node's report counts for
// the others too, so the rules are:
//
//   - a report counts only while a pod with this image is bound to the node, and for linger after (of a digest permanently,
//     since what it names cannot change): a node cannot report an image that it was not to run;
//   - only the answer of an image registry makes an image known. A copy that was imported by hand proves that its own architecture
//     exists, not that others do not;
//   - an architecture exists when any node reports it. So no node can make an image unknown that another one has pulled. A
//     node's newest report of an image replaces its older one.
//
// What one node may report is bounded in number and size.
package images
