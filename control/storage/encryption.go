package storage

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/controller"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig/metrics"
	"k8s.io/apiserver/pkg/storage/value"
)

// Encryption says how each resource's objects are encrypted before they are
// stored, as a file with an EncryptionConfiguration wants it. The store, its log
// and its snapshots, and the other members see ciphertext only.
type Encryption struct {
	// Check is unhealthy while a KMS plugin cannot be asked. The server still
	// serves what it has decrypted, so it is no reason to restart it.
	Check healthz.HealthChecker

	path, id, hash string
	transformers   *encryptionconfig.DynamicTransformers
	close          context.CancelFunc
}

// LoadEncryption reads the file and connects to the KMS plugins it names. The
// name of this server appears in metrics. The caller calls Close at the end.
func LoadEncryption(path, serverName string, logger *slog.Logger) (*Encryption, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("encryptionConfig: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		logger.Warn("the encryption configuration holds keys and others can read it; chmod 0600 it", "file", path, "mode", info.Mode().Perm())
	}
	ctx, cancel := context.WithCancel(context.Background())
	const reload = true
	loaded, err := encryptionconfig.LoadEncryptionConfig(ctx, path, reload, serverName)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("encryptionConfig %s: %w", path, err)
	}
	if len(loaded.HealthChecks) != 1 {
		cancel()
		return nil, fmt.Errorf("encryptionConfig %s: %d health checks where one is expected", path, len(loaded.HealthChecks))
	}
	metrics.RecordEncryptionConfigLastConfigInfo(serverName, loaded.EncryptionFileContentHash)
	// The transformers end with cancel when they are replaced.
	transformers := encryptionconfig.NewDynamicTransformers(loaded.Transformers, loaded.HealthChecks[0], cancel, loaded.KMSCloseGracePeriod)
	return &Encryption{
		Check: transformers, path: path, id: serverName, hash: loaded.EncryptionFileContentHash, transformers: transformers, close: cancel,
	}, nil
}

// Transformer encrypts a resource. It follows changes of the file.
func (e *Encryption) Transformer(resource schema.GroupResource) value.Transformer {
	return e.transformers.TransformerForResource(resource)
}

// Run follows changes of the file until ctx ends. A file that cannot be used is
// reported and changes nothing.
func (e *Encryption) Run(ctx context.Context) {
	controller.NewDynamicEncryptionConfiguration("encryption", e.path, e.transformers, e.hash, e.id).Run(ctx)
}

// Close ends the connections to the plugins of the file that was loaded first;
// those of later ones end with Run.
func (e *Encryption) Close() { e.close() }
