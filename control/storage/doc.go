// Package storage joins the generic registry of k8s.io/apiserver to raftstore:
// it gives every resource a storage.Interface (package cached, which keeps each
// object decoded once, on package raw), its codec and, where configured, its
// encryption.
//
// What flows in is the store and the scheme; what flows out is a
// generic.RESTOptionsGetter. It knows no resource by name.
package storage
