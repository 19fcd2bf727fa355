// Package csi knows the CSI drivers of this node: it finds their registration sockets
// in plugins_registry, asks each driver who it is, and tells the API with a CSINode
// object what there is.
//
// In flow sockets, which come and go with the drivers' pods; out flow the CSINode, the
// driver's node ID as an annotation and its topology as labels of the Node, and Driver,
// by which volumes are staged and published. What a volume is, is not known here.
package csi
