package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// flagOfKey returns the flag that a key of the file stands for. Docker's keys
// are its flags' names, in the plural where a flag may be repeated.
func flagOfKey(key string) string {
	switch key {
	case "hosts":
		return "host"
	case "default-address-pools":
		return "default-address-pool"
	case "plugin-dirs":
		return "plugin-dir"
	case "dns-opts":
		return "dns-opt"
	case "host-gateway-ips":
		return "host-gateway-ip"
	case "cluster-store-opts":
		return "cluster-store-opt"
	case "default-network-opts":
		return "default-network-opt"
	case "insecure-registries":
		return "insecure-registry"
	}
	return key
}

// isFileKey says that a flag may be set in the file, under this key.
func isFileKey(key string, flags *pflag.FlagSet) bool {
	switch key {
	case "host", "default-address-pool", "default-network-opt", "plugin-dir", "dns-opt", "host-gateway-ip", "insecure-registry", "cluster-store-opt", "config-file", "help":
		return false
	}
	return flags.Lookup(flagOfKey(key)) != nil
}

// applyConfigFile sets the flags that a file names. A flag that was given as
// well is an error, for nobody could tell which one was meant.
func applyConfigFile(flags *pflag.FlagSet, content []byte) error {
	if len(bytes.TrimSpace(content)) == 0 {
		return nil
	}
	var keys map[string]json.RawMessage
	decoder := json.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(&keys); err != nil {
		return fmt.Errorf("invalid JSON: %w", err)
	}
	if decoder.More() {
		return errors.New("invalid JSON: there is more behind the closing brace")
	}
	var unknown, both []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		flag := flags.Lookup(flagOfKey(key))
		switch {
		case !isFileKey(key, flags):
			unknown = append(unknown, key)
		case flag.Changed:
			both = append(both, fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, flag.Value, keys[key]))
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(both) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(both, ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if err := applyKey(flags.Lookup(flagOfKey(key)), key, keys[key]); err != nil {
			return err
		}
	}
	return nil
}

func applyKey(flag *pflag.Flag, key string, raw json.RawMessage) error {
	values, err := keyTexts(key, flag.Value.Type(), raw)
	if err != nil {
		return err
	}
	if many, ok := flag.Value.(pflag.SliceValue); ok {
		err = many.Replace(values)
	} else {
		err = flag.Value.Set(values[0])
	}
	if err != nil {
		return fmt.Errorf("invalid value of %q: %s: %w", key, raw, err)
	}
	return nil
}

// keyTexts returns the value of a key in the form in which it is typed.
func keyTexts(key, kind string, raw json.RawMessage) ([]string, error) {
	fault := func(want string) error { return fmt.Errorf("invalid value of %q: %s: want %s", key, raw, want) }
	switch {
	case key == "default-address-pools":
		var pools []struct {
			Base string
			Size int
		}
		if err := json.Unmarshal(raw, &pools); err != nil {
			return nil, fault(`[{"base": "10.10.0.0/16", "size": 24}]`)
		}
		texts := make([]string, len(pools))
		for i, pool := range pools {
			texts[i] = fmt.Sprintf("base=%s,size=%d", pool.Base, pool.Size)
		}
		return texts, nil
	case key == "cluster-store-opts":
		var options map[string]string
		if err := json.Unmarshal(raw, &options); err != nil {
			return nil, fault(`{"kv.cacertfile": "/etc/etcd/ca.pem"}`)
		}
		var texts []string
		for _, name := range slices.Sorted(maps.Keys(options)) {
			texts = append(texts, name+"="+options[name])
		}
		return texts, nil
	case key == "default-network-opts":
		var options map[string]map[string]string
		if err := json.Unmarshal(raw, &options); err != nil {
			return nil, fault(`{"bridge": {"com.docker.network.driver.mtu": "1400"}}`)
		}
		var texts []string
		for _, driver := range slices.Sorted(maps.Keys(options)) {
			for _, option := range slices.Sorted(maps.Keys(options[driver])) {
				texts = append(texts, driver+"="+option+"="+options[driver][option])
			}
		}
		return texts, nil
	case strings.HasSuffix(kind, "Array"):
		var texts []string
		if err := json.Unmarshal(raw, &texts); err != nil {
			return nil, fault("a list of strings")
		}
		return texts, nil
	case kind == "bool":
		var value bool
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, fault("true or false")
		}
		return []string{fmt.Sprint(value)}, nil
	case kind == "int":
		var value int
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, fault("a whole number")
		}
		return []string{fmt.Sprint(value)}, nil
	default:
		var value string
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, fault("a string")
		}
		return []string{value}, nil
	}
}
