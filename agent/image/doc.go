// Package image gets images onto the node for containers and removes those
// nobody uses when the disk fills up.
//
// Pods and pull secrets go in; the resolved image or a failure with the reason
// users know (ErrImagePull, ImagePullBackOff, ...) comes out.
package image
