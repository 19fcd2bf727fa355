package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
)

// StoreAuthority and StorePeer are the names of the files, without ending, of
// the store members' own authority and of this member's certificate.
const (
	StoreAuthority = "store-ca"
	StorePeer      = "store-peer"
)

// authorities are the file names of all authorities of a control machine.
var authorities = []string{"ca", "front-proxy-ca", StoreAuthority}

// MemberURI is the identity of a store member: what its certificate says of
// who it is, whatever addresses it has.
func MemberURI(memberID string) *url.URL {
	return &url.URL{Scheme: "skiff", Host: "member", Path: "/" + memberID}
}

// EnsureStoreMember keeps, or makes, the certificate by which the store member
// of this machine is known to the others (store-peer.crt and .key), and the
// authority of all members (store-ca.crt and .key) where there is none yet.
// The names and addresses are what the others may reach this machine by. On a
// machine without the authority's key, what is there must fit already.
func EnsureStoreMember(dir, memberID string, names []string, addresses []net.IP) error {
	if memberID == "" {
		return errors.New("make certificate of the store member: it has no id")
	}
	request := Request{
		CommonName: "skiff-store-member", DNSNames: unique(append([]string{"localhost"}, names...)),
		IPs:  uniqueIPs(append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, addresses...)),
		URIs: []*url.URL{MemberURI(memberID)}, Server: true, Client: true,
	}
	authority, err := LoadAuthority(dir, StoreAuthority)
	if errors.Is(err, fs.ErrNotExist) {
		identity, loadErr := LoadStoreMember(dir)
		if loadErr == nil {
			if uris := identity.leaf().URIs; len(uris) == 1 && uris[0].String() == request.URIs[0].String() {
				return nil
			}
			return fmt.Errorf("certificate %s is of another member than %s, and there is no %s to sign one: copy the key from another control machine, or join again",
				filepath.Join(dir, StorePeer+".crt"), memberID, filepath.Join(dir, StoreAuthority+".key"))
		}
		if !errors.Is(loadErr, fs.ErrNotExist) {
			return loadErr
		}
		authority, err = EnsureAuthority(dir, StoreAuthority, "skiff-store-ca")
	}
	if err != nil {
		return err
	}
	return authority.Ensure(dir, StorePeer, request)
}

// LoadStoreMember reads the certificate of this machine's store member and the
// authorities it trusts; renewed files are taken up without a restart.
func LoadStoreMember(dir string) (*Identity, error) {
	return LoadIdentity(filepath.Join(dir, StorePeer+".crt"), filepath.Join(dir, StorePeer+".key"), filepath.Join(dir, StoreAuthority+".crt"))
}
