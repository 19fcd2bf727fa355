// Package renewal keeps a control machine's certificates valid for ever, with
// nobody's help and without a restart.
//
// In every round it trusts the authorities that the other control machines
// sign with, signs anew what is due, and takes the next step of replacing an
// authority when that is safe. What the machines must know of each other goes
// through the store's ledger: certificates of authorities, which are public,
// and who trusts them. A key never leaves its machine.
//
// It knows the folder of certificates (package internal/pki) and the ledger,
// and no API server.
package renewal
