package tracking

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// ChainName is the name of our chain in the table filter, where there is no
// nftables.
const ChainName = "SKIFF-TRACKING"

// each calls f for every program called iptables that the machine has.
func each(programs []string, f func(*iptables.IPTables) error) (found bool, err error) {
	var errs []error
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		family, names := iptables.ProtocolIPv4, "ip_tables_names"
		if strings.HasPrefix(name, "ip6") {
			family, names = iptables.ProtocolIPv6, "ip6_tables_names"
		}
		if strings.HasSuffix(name, "-legacy") {
			// To ask the legacy program about a table makes it.
			if tables, err := os.ReadFile("/proc/thread-self/net/" + names); err != nil || !slices.Contains(strings.Fields(string(tables)), "filter") {
				continue
			}
		}
		found = true
		tables, err := iptables.New(iptables.IPFamily(family), iptables.Path(path), iptables.Timeout(5))
		if err == nil {
			err = f(tables)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	return found, errors.Join(errs...)
}

// iptablesOn does as On does, with a chain that nothing leads to, and says
// whether the machine has iptables at all.
func iptablesOn() (found bool, err error) {
	found, err = each([]string{"iptables", "ip6tables"}, func(t *iptables.IPTables) error {
		if exists, err := t.ChainExists("filter", ChainName); err != nil || exists {
			return err
		}
		if err := t.NewChain("filter", ChainName); err != nil {
			return err
		}
		return t.Append("filter", ChainName, "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
	})
	if err != nil {
		err = fmt.Errorf("turn connection tracking on with iptables: %w", err)
	}
	return found, err
}

// iptablesOff removes the chain from every table that may have it.
func iptablesOff() error {
	_, err := each([]string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"}, func(t *iptables.IPTables) error {
		if exists, err := t.ChainExists("filter", ChainName); err != nil || !exists {
			return err
		}
		return t.ClearAndDeleteChain("filter", ChainName)
	})
	if err != nil {
		return fmt.Errorf("remove chain %s: %w", ChainName, err)
	}
	return nil
}
