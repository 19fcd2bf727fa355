package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubelet/config/v1"
	credentialprovider "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"sigs.k8s.io/yaml"
)

const (
	// providerLimit is how long a provider's program may take.
	providerLimit = time.Minute
	// providerOutput bounds what it may print.
	providerOutput = 1 << 20
	providerAPI    = "credentialprovider.kubelet.k8s.io/v1"
	configAPI      = "kubelet.config.k8s.io/v1"
)

// Accounts tells of service accounts and makes their tokens.
type Accounts interface {
	ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error)
	Token(ctx context.Context, pod *v1.Pod, audience string, seconds *int64) (token string, expires time.Time, err error)
}

// Providers are the programs that know credentials for registries: the kubelet's
// credential providers, by their configuration file and their protocol.
type Providers struct {
	list     []*provider
	accounts Accounts
	logger   *slog.Logger
}

type provider struct {
	kubeletconfig.CredentialProvider
	path   string
	flight singleflight.Group

	mu    sync.Mutex // guards cache
	cache map[string]cached
}

type cached struct {
	auth  map[string]credentialprovider.AuthConfig
	until time.Time
}

// LoadProviders reads the configuration; binDir holds the programs, under the
// providers' names.
func LoadProviders(file, binDir string, accounts Accounts, logger *slog.Logger) (*Providers, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("imageCredentialProviderConfig: %w", err)
	}
	var config kubeletconfig.CredentialProviderConfig
	if err := yaml.UnmarshalStrict(data, &config); err != nil {
		return nil, fmt.Errorf("imageCredentialProviderConfig %s: %w", file, err)
	}
	if config.APIVersion != configAPI || config.Kind != "CredentialProviderConfig" {
		return nil, fmt.Errorf("imageCredentialProviderConfig %s: apiVersion %q, kind %q: %s, CredentialProviderConfig is needed", file, config.APIVersion, config.Kind, configAPI)
	}
	p := &Providers{accounts: accounts, logger: logger}
	seen := map[string]bool{}
	for i := range config.Providers {
		one := &provider{CredentialProvider: config.Providers[i], cache: map[string]cached{}}
		if err := one.check(binDir); err != nil {
			return nil, fmt.Errorf("imageCredentialProviderConfig %s: providers[%d]: %w", file, i, err)
		}
		if seen[one.Name] {
			return nil, fmt.Errorf("imageCredentialProviderConfig %s: providers[%d]: name %q is there twice", file, i, one.Name)
		}
		seen[one.Name] = true
		p.list = append(p.list, one)
	}
	if len(p.list) == 0 {
		return nil, fmt.Errorf("imageCredentialProviderConfig %s: at least 1 item in providers is required", file)
	}
	return p, nil
}

func (p *provider) check(binDir string) error {
	switch {
	case p.Name == "" || strings.ContainsAny(p.Name, "/ ") || p.Name == "." || p.Name == "..":
		return fmt.Errorf("name %q: must be the name of a program in imageCredentialProviderBinDir", p.Name)
	case p.APIVersion != providerAPI:
		return fmt.Errorf("apiVersion %q: this release knows %s", p.APIVersion, providerAPI)
	case len(p.MatchImages) == 0:
		return errors.New("matchImages: at least one pattern is needed")
	case p.DefaultCacheDuration == nil:
		return errors.New("defaultCacheDuration: is required")
	case p.DefaultCacheDuration.Duration < 0:
		return errors.New("defaultCacheDuration: must not be negative")
	}
	if t := p.TokenAttributes; t != nil {
		switch {
		case t.ServiceAccountTokenAudience == "":
			return errors.New("tokenAttributes.serviceAccountTokenAudience: is required")
		case t.RequireServiceAccount == nil:
			return errors.New("tokenAttributes.requireServiceAccount: is required")
		case t.CacheType != kubeletconfig.TokenServiceAccountTokenCacheType && t.CacheType != kubeletconfig.ServiceAccountServiceAccountTokenCacheType:
			return fmt.Errorf("tokenAttributes.cacheType %q: must be Token or ServiceAccount", t.CacheType)
		}
	}
	path, err := exec.LookPath(filepath.Join(binDir, p.Name))
	if err != nil {
		return fmt.Errorf("plugin binary executable %s did not exist or cannot be run: %w", filepath.Join(binDir, p.Name), err)
	}
	p.path = path
	return nil
}

// lookup asks the providers that match an image. One that fails is left out and
// logged: the image may be public, or another may know it.
func (p *Providers) lookup(ctx context.Context, pod *v1.Pod, image, domain, repository string) []Credential {
	var list []Credential
	for _, one := range p.list {
		concerned := slices.ContainsFunc(one.MatchImages, func(pattern string) bool {
			host, prefix := splitRegistry(pattern)
			return matchesImage(host, prefix, domain, repository)
		})
		if !concerned {
			continue
		}
		auth, account, err := one.ask(ctx, p.accounts, pod, image, domain)
		if err != nil {
			p.logger.Error("a credential provider fails", "provider", one.Name, "image", image, "pod", pod.Name, "namespace", pod.Namespace, "error", err)
			continue
		}
		var matches []match
		for registry, a := range auth {
			host, prefix := splitRegistry(registry)
			if matchesImage(host, prefix, domain, repository) {
				matches = append(matches, match{Credential{
					Auth: &runtimeapi.AuthConfig{Username: a.Username, Password: a.Password}, ServiceAccount: account,
				}, host + "/" + prefix})
			}
		}
		list = appendSorted(list, matches)
	}
	return list
}

// ask returns what the provider knows, from its cache if that is still good.
func (p *provider) ask(ctx context.Context, accounts Accounts, pod *v1.Pod, image, registry string) (map[string]credentialprovider.AuthConfig, *AccountSource, error) {
	request := credentialprovider.CredentialProviderRequest{Image: image}
	request.APIVersion, request.Kind = providerAPI, "CredentialProviderRequest"
	var account *AccountSource
	scope := ""
	if t := p.TokenAttributes; t != nil {
		if pod.Spec.ServiceAccountName == "" {
			if *t.RequireServiceAccount {
				return nil, nil, nil
			}
		} else {
			var wanted bool
			var err error
			if account, wanted, err = p.act(ctx, accounts, pod, &request); err != nil || !wanted {
				return nil, nil, err
			}
			scope = account.Namespace + "/" + account.Name + "/" + account.UID + "/" + fmt.Sprint(request.ServiceAccountAnnotations)
			if t.CacheType == kubeletconfig.TokenServiceAccountTokenCacheType {
				scope += "/" + request.ServiceAccountToken
			}
		}
	}
	if auth, found := p.recall(scope, image, registry); found {
		return auth, account, nil
	}
	result, err, _ := p.flight.Do(scope+" "+image, func() (any, error) {
		// Others may wait for the same answer.
		return p.run(context.WithoutCancel(ctx), &request)
	})
	if err != nil {
		return nil, nil, err
	}
	response := result.(*credentialprovider.CredentialProviderResponse)
	if t := p.TokenAttributes; t != nil && t.CacheType != kubeletconfig.TokenServiceAccountTokenCacheType && request.ServiceAccountToken != "" {
		for _, a := range response.Auth {
			if a.Password == request.ServiceAccountToken {
				return nil, nil, errors.New("credential provider plugin returned the service account token as the password which is not allowed when service account cache type is not set to 'Token'")
			}
		}
	}
	return response.Auth, account, p.remember(scope, image, registry, response)
}

// act fills in what the provider is told of the pod's service account; wanted is
// false when the account lacks an annotation by which it would ask for that.
func (p *provider) act(ctx context.Context, accounts Accounts, pod *v1.Pod, request *credentialprovider.CredentialProviderRequest) (source *AccountSource, wanted bool, err error) {
	t := p.TokenAttributes
	account, err := accounts.ServiceAccount(ctx, pod.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return nil, false, fmt.Errorf("failed to get service account: %w", err)
	}
	annotations := map[string]string{}
	for _, key := range t.RequiredServiceAccountAnnotationKeys {
		value, ok := account.Annotations[key]
		if !ok {
			return nil, false, nil
		}
		annotations[key] = value
	}
	for _, key := range t.OptionalServiceAccountAnnotationKeys {
		if value, ok := account.Annotations[key]; ok {
			annotations[key] = value
		}
	}
	token, _, err := accounts.Token(ctx, pod, t.ServiceAccountTokenAudience, nil)
	if err != nil {
		return nil, false, fmt.Errorf("failed to get service account token: %w", err)
	}
	request.ServiceAccountToken, request.ServiceAccountAnnotations = token, annotations
	return &AccountSource{UID: string(account.UID), Namespace: account.Namespace, Name: account.Name}, true, nil
}

// run runs the program: the request on its standard input, the answer on its standard output.
func (p *provider) run(ctx context.Context, request *credentialprovider.CredentialProviderRequest) (*credentialprovider.CredentialProviderResponse, error) {
	input, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode the request to a credential provider: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, providerLimit)
	defer cancel()
	command := exec.CommandContext(ctx, p.path, p.Args...)
	command.Env = os.Environ()
	for _, e := range p.Env {
		command.Env = append(command.Env, e.Name+"="+e.Value)
	}
	output, problem := bounded{limit: providerOutput}, bounded{limit: 4 << 10}
	command.Stdin, command.Stdout, command.Stderr, command.WaitDelay = bytes.NewReader(input), &output, &problem, time.Second
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w; it says %q", p.path, err, problem.String())
	}
	response := &credentialprovider.CredentialProviderResponse{}
	// What it printed may be secret and stays out of the messages.
	if err := json.Unmarshal(output.Bytes(), response); err != nil {
		return nil, fmt.Errorf("%s printed no CredentialProviderResponse", p.path)
	}
	if response.APIVersion != providerAPI || response.Kind != "CredentialProviderResponse" {
		return nil, fmt.Errorf("apiVersion from credential plugin response did not match expected apiVersion:%s, actual apiVersion:%s, kind %q", providerAPI, response.APIVersion, response.Kind)
	}
	return response, nil
}

// bounded keeps the beginning of what is written.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(data []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(data[:min(room, len(data))])
	}
	return len(data), nil
}

func (p *provider) recall(scope, image, registry string) (map[string]credentialprovider.AuthConfig, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, c := range p.cache {
		if time.Now().After(c.until) {
			delete(p.cache, key)
		}
	}
	for _, key := range []string{image, registry, ""} {
		if c, ok := p.cache[scope+" "+key]; ok {
			return c.auth, true
		}
	}
	return nil, false
}

func (p *provider) remember(scope, image, registry string, response *credentialprovider.CredentialProviderResponse) error {
	var key string
	switch response.CacheKeyType {
	case credentialprovider.ImagePluginCacheKeyType:
		key = image
	case credentialprovider.RegistryPluginCacheKeyType:
		key = registry
	case credentialprovider.GlobalPluginCacheKeyType:
	default:
		return fmt.Errorf("credential provider plugin did not return a valid cacheKeyType: %s", response.CacheKeyType)
	}
	keep := p.DefaultCacheDuration.Duration
	if response.CacheDuration != nil {
		keep = response.CacheDuration.Duration
	}
	if keep <= 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cache[scope+" "+key] = cached{response.Auth, time.Now().Add(keep)}
	return nil
}
