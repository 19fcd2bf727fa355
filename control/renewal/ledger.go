package renewal

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/skiff-run/skiff/raftstore"
)

// Record is what one control machine tells the others.
type Record struct {
	// Wants are the authorities, PEM by name, that others should trust because
	// this machine signs with them, will, or did.
	Wants map[string]string `json:"wants"`
	// Trusts are the fingerprints of the authorities this machine trusts.
	Trusts map[string][]string `json:"trusts"`
	// Left is when the machine was seen to be no member any more.
	Left time.Time `json:"left,omitzero"`
}

// Ledger is where control machines read each other's records.
type Ledger interface {
	// Records are all records by the member they are of.
	Records(ctx context.Context) (map[string]Record, error)
	Write(ctx context.Context, member string, record Record) error
	Delete(ctx context.Context, member string) error
	// Members are the ids of the members of the store now.
	Members(ctx context.Context) ([]string, error)
}

// ledgerPrefix is before the keys of the ledger. It is outside of the API's
// objects: nobody but a store member reads or writes there.
const ledgerPrefix = "/skiff.dev/authorities/"

// storeLedger keeps the ledger in the replicated store.
type storeLedger struct{ store *raftstore.Store }

// NewLedger returns the ledger in the store.
func NewLedger(store *raftstore.Store) Ledger { return &storeLedger{store} }

// Records implements Ledger, from this member's state: a record that arrives
// later is seen in the next round.
func (l *storeLedger) Records(context.Context) (map[string]Record, error) {
	found, err := l.store.Range(ledgerPrefix, "", 0, 0)
	if err != nil {
		return nil, fmt.Errorf("read the authorities of the control machines: %w", err)
	}
	records := map[string]Record{}
	for _, kv := range found.KVs {
		var record Record
		if err := json.Unmarshal(kv.Value, &record); err != nil {
			return nil, fmt.Errorf("read the authorities of control machine %s: %w", strings.TrimPrefix(kv.Key, ledgerPrefix), err)
		}
		records[strings.TrimPrefix(kv.Key, ledgerPrefix)] = record
	}
	return records, nil
}

// Write implements Ledger.
func (l *storeLedger) Write(ctx context.Context, member string, record Record) error {
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode the authorities of control machine %s: %w", member, err)
	}
	if _, err := l.store.Put(ctx, raftstore.PutRequest{Key: ledgerPrefix + member, Value: data, ExpectModRevision: raftstore.AnyRevision}); err != nil {
		return fmt.Errorf("publish the authorities of control machine %s: %w", member, err)
	}
	return nil
}

// Delete implements Ledger.
func (l *storeLedger) Delete(ctx context.Context, member string) error {
	if _, err := l.store.Delete(ctx, raftstore.DeleteRequest{Key: ledgerPrefix + member, ExpectModRevision: raftstore.AnyRevision}); err != nil {
		return fmt.Errorf("forget the authorities of control machine %s: %w", member, err)
	}
	return nil
}

// Members implements Ledger.
func (l *storeLedger) Members(ctx context.Context) ([]string, error) {
	members, err := l.store.Members(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(members))
	for i, member := range members {
		ids[i] = member.ID
	}
	return ids, nil
}
