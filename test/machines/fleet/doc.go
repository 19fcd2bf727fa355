// Package fleet runs whole Debian machines with systemd, reached over ssh as an
// administrator reaches theirs, in one network that is made of a bridge in a
// network namespace. Nothing of Skiff is on them when they start.
//
// The network's other end, the host, is where Ansible and kubectl run
// (Fleet.Command); it serves Debian's packages and container images, since a
// fleet has no way to anywhere else. What a fleet consists of lies in one folder,
// so that another process can take it over (Open) or down.
//
// What kind of machines they are is behind the interface Kind: Nspawn runs them
// as systemd-nspawn containers, QEMU as virtual machines.
package fleet
