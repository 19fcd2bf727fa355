package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// policyTable is the table, of the family inet, by which skiff-proxy enforces
// network policies. While it exists, addresses of the node's ranges are open
// only if they are in its sets known4 and known6.
const policyTable = "skiff-policy"

// disown closes addresses that are about to get a new owner, until the proxy
// knows whose they are: it may be away, and still have the rules of the last owner.
func (f *firewall) disown(ctx context.Context, addresses []netip.Addr) error {
	there, err := tableExists(policyTable)
	if err != nil || !there {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.policy == nil {
		if f.policy, err = knftables.New(knftables.InetFamily, policyTable); err != nil {
			return fmt.Errorf("nftables: %w; install the package nftables", err)
		}
	}
	for _, address := range addresses {
		tx := f.policy.NewTransaction()
		tx.Delete(&knftables.Element{Set: "known" + familyOf(address).suffix, Key: []string{address.String()}})
		if err := f.policy.Run(ctx, tx); err != nil && !knftables.IsNotFound(err) {
			return fmt.Errorf("close address %s until its network policies are known: %w", address, err)
		}
	}
	return nil
}

// tableExists asks the kernel for a table of the family inet, which costs
// microseconds where the program nft takes milliseconds.
func tableExists(name string) (bool, error) {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, 0)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET, Version: nl.NFNETLINK_V0})
	request.AddData(nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(name)))
	_, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for nftables table inet %s: %w", name, err)
	}
	return true, nil
}
