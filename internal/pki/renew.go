package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
)

// Renew signs new certificates, with new keys, in place of those with the given
// names (as Check calls them), or of all that this machine has the authority's
// key for when none is given. It returns the names of those renewed. What a
// certificate says stays the same. Running daemons take the new ones up by
// themselves.
func Renew(dir string, names ...string) (renewed []string, err error) {
	err = locked(dir, func() error {
		renewed, err = renewNamed(dir, names)
		return err
	})
	return renewed, err
}

func renewNamed(dir string, names []string) ([]string, error) {
	found, err := Check(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if slices.Contains(authorities, name) {
			return nil, fmt.Errorf("renew %s: an authority is replaced in steps, so that nobody is locked out: run \"skiff pki rotate\"", name)
		}
		at := slices.IndexFunc(found, func(c Certificate) bool { return c.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("renew %s: there is no such certificate in %s; see \"skiff pki check\"", name, dir)
		}
		if !found[at].Renewable {
			return nil, fmt.Errorf("renew %s: this machine does not have the key of the authority that signs it", name)
		}
	}
	return renew(dir, found, func(c Certificate, _ *Authority) bool { return len(names) == 0 || slices.Contains(names, c.Name) })
}

// RenewDue renews what should be by now: certificates with a third or less of
// their life left, those that an authority signed which is being replaced, and
// those whose key a crash has replaced without them.
// Kubeconfigs get the authorities trusted now. It returns the names of the
// files that changed; with an error, those that changed nevertheless.
func RenewDue(dir string) (changed []string, err error) {
	err = locked(dir, func() error {
		found, err := Check(dir)
		if err != nil {
			return err
		}
		renewed, err := renew(dir, found, func(c Certificate, a *Authority) bool {
			return c.unpaired || due(c.leaf) || !signedBy(c.leaf, a.Certificate)
		})
		updated, trustErr := trustInKubeconfigs(dir)
		changed = append(renewed, updated...)
		return errors.Join(err, trustErr)
	})
	return changed, err
}

func renew(dir string, found []Certificate, wanted func(Certificate, *Authority) bool) ([]string, error) {
	var renewed []string
	var errs []error
	signing := map[string]*Authority{}
	for _, c := range found {
		if !c.Renewable || c.leaf.IsCA {
			continue
		}
		authority := signing[c.Authority]
		if authority == nil {
			var err error
			if authority, err = LoadAuthority(dir, c.Authority); err != nil {
				errs = append(errs, fmt.Errorf("renew %s: %w", c.Name, err))
				continue
			}
			signing[c.Authority] = authority
		}
		if !wanted(c, authority) {
			continue
		}
		if err := authority.replace(dir, c); err != nil {
			errs = append(errs, fmt.Errorf("renew %s: %w", c.Name, err))
			continue
		}
		renewed = append(renewed, c.Name)
	}
	return renewed, errors.Join(errs...)
}

// replace signs a certificate that says what the present one says.
func (a *Authority) replace(dir string, c Certificate) error {
	request := Request{
		CommonName: c.leaf.Subject.CommonName, Organizations: c.leaf.Subject.Organization,
		DNSNames: c.leaf.DNSNames, IPs: c.leaf.IPAddresses, URIs: c.leaf.URIs,
		Server: slices.Contains(c.leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth),
		Client: slices.Contains(c.leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth),
	}
	pair, err := a.Sign(request)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(c.Path, ".conf") {
		return writePair(dir, c.Name, pair)
	}
	config, err := clientcmd.LoadFromFile(c.Path)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	for _, user := range config.AuthInfos {
		if leaf, err := parseCertificate(user.ClientCertificateData); err == nil && leaf.Equal(c.leaf) {
			user.ClientCertificateData, user.ClientKeyData = pair.Certificate, pair.Key
		}
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	return WriteFile(c.Path, data)
}

// trustInKubeconfigs puts the authorities trusted now into the kubeconfigs
// beside dir that trust one of them already.
func trustInKubeconfigs(dir string) ([]string, error) {
	trusted, err := ReadBundle(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	wanted := EncodeBundle(trusted)
	paths, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*.conf"))
	if err != nil {
		return nil, fmt.Errorf("list kubeconfigs beside %s: %w", dir, err)
	}
	var updated []string
	var errs []error
	for _, path := range paths {
		config, err := clientcmd.LoadFromFile(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("read kubeconfig: %w", err))
			continue
		}
		changed := false
		for _, cluster := range config.Clusters {
			present, err := ParseBundle(cluster.CertificateAuthorityData)
			ours := err == nil && slices.ContainsFunc(present, func(c *x509.Certificate) bool { return slices.ContainsFunc(trusted, c.Equal) })
			if ours && string(cluster.CertificateAuthorityData) != string(wanted) {
				cluster.CertificateAuthorityData, changed = wanted, true
			}
		}
		if !changed {
			continue
		}
		data, err := clientcmd.Write(*config)
		if err == nil {
			err = WriteFile(path, data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("update kubeconfig %s: %w", path, err))
			continue
		}
		updated = append(updated, filepath.Base(path))
	}
	return updated, errors.Join(errs...)
}
