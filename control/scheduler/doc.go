// Package scheduler gives every pod a node: default-scheduler's role.
//
// Pods without a node wait in a Queue; each is decided on an immutable snapshot
// of the cluster by the pure functions of package plugins; the decision is
// assumed at once, so that the next pod sees it, and written to the API by a
// binding in the background. A pod that fits nowhere gets a condition and an
// event in Kubernetes' words, may make room by preempting pods of lower
// priority, and waits until something happens that could change the verdict.
//
// Nothing is kept but what informers can tell again: after a crash the next
// leader's scheduler starts from the API's state. It talks to nobody but the API.
package scheduler
