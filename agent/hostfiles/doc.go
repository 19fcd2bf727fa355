// Package hostfiles makes what a pod sees of names: its host name, its
// /etc/hosts and its resolver configuration.
//
// Pod spec and node settings go in, file contents and the CRI's DNS
// configuration come out.
package hostfiles
