// Package imageplacement moves pods away from nodes for whose architecture their image does not exist.
//
// Nothing is known of an image before a node has looked at it, so the first pods of a Deployment may come to nodes where they cannot
// start. Such a node reports it, and the scheduler places no more there. This controller does what is left: it deletes the pods that wait there,
// so that their controllers make others, which are placed by the report.
//
//	pod waits for its image ─► its node reports other architectures only ─► another node fits ─► delete ─► ReplicaSet: a new pod
//
// It leaves a pod where it is when
//
//   - no controller makes a new one, or its template names this node,
//   - no other node takes it,
//   - it has claims, whose volumes may be on this node,
//   - its Job would count one failure too many.
//
// Such a pod waits, and its status says for what.
package imageplacement
