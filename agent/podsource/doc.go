// Package podsource tells which pods shall run on this node: those the API
// server assigned to it, and those whose manifests lie in a directory.
//
// Pods come out through a small interface, one call per change. For pods from
// the directory a mirror is kept in the API, so that people can see them.
package podsource
