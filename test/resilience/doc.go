// Package resilience mistreats a cluster's control machines while clients use
// all their API servers, and decides from what the clients were answered
// whether the store kept its promises.
//
// In flow a network of hosts (test/host) on which control machines run; out
// flows a Report: what was done, what clients saw, and every violation that
// raftstore/check found. Clients speak HTTP to the API servers and know nothing
// of what is beneath; faults know hosts and processes and nothing of the API.
package resilience
