package renewal

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/skiff-run/skiff/internal/pki"
)

// Keeper keeps the certificates of one control machine.
type Keeper struct {
	// Dir is the folder of certificates, Member this machine's id in the store.
	Dir, Member string
	Ledger      Ledger
	Logger      *slog.Logger
	// Interval is the time between rounds, a minute when zero.
	Interval time.Duration
}

// defaultInterval is short because a person who runs "skiff pki rotate" waits
// for it; a round reads a dozen small files and writes nothing.
const defaultInterval = time.Minute

// Run keeps the certificates until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	interval := k.Interval
	if interval == 0 {
		interval = defaultInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := ""
	for {
		err := k.Round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last = ""
		case err.Error() != last:
			// Once, not each minute.
			last = err.Error()
			k.Logger.Warn("keep certificates valid; trying again", "error", err, "every", interval)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Round does once all that is to be done now. An error of one part does not
// keep the others from their work.
func (k *Keeper) Round(ctx context.Context) error {
	records, err := k.Ledger.Records(ctx)
	var errs []error
	if err == nil {
		errs = append(errs, k.trust(records), k.publish(ctx, records[k.Member]))
	}
	errs = append(errs, err)
	renewed, err := pki.RenewDue(k.Dir)
	if len(renewed) > 0 {
		k.Logger.Info("certificates renewed", "names", renewed)
	}
	errs = append(errs, err)
	members, err := k.Ledger.Members(ctx)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list control machines: %w", err))...)
	}
	errs = append(errs, k.forget(ctx, records, members))
	for _, name := range pki.Authorities(k.Dir) {
		errs = append(errs, k.advance(name, records, members))
	}
	return errors.Join(errs...)
}

// trust makes the authorities of all control machines trusted here.
func (k *Keeper) trust(records map[string]Record) error {
	var errs []error
	for _, name := range pki.AuthorityNames() {
		path := filepath.Join(k.Dir, name+".crt")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		var others []*x509.Certificate
		for _, member := range slices.Sorted(maps.Keys(records)) {
			wants := records[member].Wants[name]
			if member == k.Member || wants == "" {
				continue
			}
			bundle, err := pki.ParseBundle([]byte(wants))
			if err != nil {
				errs = append(errs, fmt.Errorf("authority %s of control machine %s: %w", name, member, err))
				continue
			}
			others = append(others, bundle...)
		}
		// What this machine has no key for came from another that has not
		// spoken yet: it stays until somebody does.
		if len(others) == 0 && !slices.Contains(pki.Authorities(k.Dir), name) {
			continue
		}
		changed, err := pki.Trust(k.Dir, name, others)
		if changed {
			k.Logger.Info("trusted authorities changed", "authority", name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// publish tells the others what to trust on account of this machine, and what
// it trusts itself.
func (k *Keeper) publish(ctx context.Context, known Record) error {
	record := Record{Wants: map[string]string{}, Trusts: map[string][]string{}}
	for _, name := range pki.AuthorityNames() {
		bundle, err := pki.ReadBundle(filepath.Join(k.Dir, name+".crt"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, each := range bundle {
			record.Trusts[name] = append(record.Trusts[name], pki.Fingerprint(each))
		}
		slices.Sort(record.Trusts[name])
	}
	for _, name := range pki.Authorities(k.Dir) {
		rotation, err := pki.RotationOf(k.Dir, name)
		if err != nil {
			return err
		}
		record.Wants[name] = string(pki.EncodeBundle(rotation.Own()))
	}
	same := known.Left.IsZero() && maps.Equal(known.Wants, record.Wants) && maps.EqualFunc(known.Trusts, record.Trusts, slices.Equal)
	if same {
		return nil
	}
	return k.Ledger.Write(ctx, k.Member, record)
}

// forget drops the authorities of a machine that is no member any more, once
// nothing they have signed can be valid.
func (k *Keeper) forget(ctx context.Context, records map[string]Record, members []string) error {
	var errs []error
	for member, record := range records {
		switch {
		case slices.Contains(members, member):
		case record.Left.IsZero():
			record.Left = time.Now()
			errs = append(errs, k.Ledger.Write(ctx, member, record))
		case time.Since(record.Left) > pki.Fading:
			errs = append(errs, k.Ledger.Delete(ctx, member))
		}
	}
	return errors.Join(errs...)
}
