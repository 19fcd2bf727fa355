// Package announce makes this machine answer for addresses of load balancers:
// by ARP and neighbor discovery, for each address from one machine at a time.
//
// The proxies agree through the API. A Lease for each address names the machine
// that has it and is written only when that changes; another Lease for each
// machine that has any is renewed every 0.4 s. Who has not renewed it for
// 1.2 s has died: the others try to take its addresses, and the
// API lets one of them.
//
// While the API is away nothing can be taken, so who has an address keeps it,
// but gives way when another announces it on the same network: that one could
// reach the API.
package announce
