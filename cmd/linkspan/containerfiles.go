package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/pflag"
)

// environment joins the variables of files and flags; flags come last, so they
// win. A name without a value takes that of the caller's environment.
func environment(from ambient, files, flags []string) ([]string, error) {
	var env []string
	for _, name := range files {
		content, err := from.readFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading --env-file: %w", err)
		}
		variables, err := parseEnvFile(string(content), from.getenv)
		if err != nil {
			return nil, fmt.Errorf("reading --env-file %s: %w", name, err)
		}
		env = append(env, variables...)
	}
	for _, variable := range flags {
		name, _, given := strings.Cut(variable, "=")
		if name == "" {
			return nil, fmt.Errorf("invalid environment variable: %s", variable)
		}
		if value, ok := from.getenv(name); !given && ok {
			variable = name + "=" + value
		}
		env = append(env, variable)
	}
	return env, nil
}

// parseEnvFile reads lines of NAME=value or NAME; # starts a comment. The
// value is taken as it stands, quotes and all.
func parseEnvFile(content string, getenv func(string) (string, bool)) ([]string, error) {
	var env []string
	content = strings.TrimPrefix(content, "\ufeff")
	for line := range strings.Lines(content) {
		line = strings.TrimLeftFunc(strings.TrimRight(line, "\r\n"), unicode.IsSpace)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, given := strings.Cut(line, "=")
		switch {
		case name == "":
			return nil, fmt.Errorf("no variable name on line %q", line)
		case strings.ContainsFunc(name, unicode.IsSpace):
			return nil, fmt.Errorf("variable %q contains whitespaces", name)
		case given:
			env = append(env, name+"="+value)
		default:
			if inherited, ok := getenv(name); ok {
				env = append(env, name+"="+inherited)
			}
		}
	}
	return env, nil
}

func (o *containerOptions) allLabels(from ambient) (map[string]string, error) {
	var values []string
	// A label without a value is empty, not drawn from anywhere.
	empty := func(string) (string, bool) { return "", true }
	for _, name := range o.labelFiles {
		content, err := from.readFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading --label-file: %w", err)
		}
		labels, err := parseEnvFile(string(content), empty)
		if err != nil {
			return nil, fmt.Errorf("reading --label-file %s: %w", name, err)
		}
		values = append(values, labels...)
	}
	return labelValues(append(values, o.labels...))
}

// binds makes the host's side of -v absolute where it is a path.
func binds(volumes []string) ([]string, error) {
	var binds []string
	for _, volume := range volumes {
		source, rest, ok := strings.Cut(volume, ":")
		if !ok {
			if !filepath.IsAbs(volume) {
				return nil, fmt.Errorf("invalid --volume %q: the path in the container must be absolute", volume)
			}
			continue
		}
		if strings.HasPrefix(source, ".") {
			absolute, err := filepath.Abs(source)
			if err != nil {
				return nil, fmt.Errorf("invalid --volume %q: %w", volume, err)
			}
			source = absolute
		}
		if target, _, _ := strings.Cut(rest, ":"); !filepath.IsAbs(target) {
			return nil, fmt.Errorf("invalid --volume %q: the path in the container must be absolute", volume)
		}
		binds = append(binds, source+":"+rest)
	}
	return binds, nil
}

func tmpfsMounts(values []string) (map[string]string, error) {
	mounts := map[string]string{}
	for _, text := range values {
		target, options, _ := strings.Cut(text, ":")
		if !filepath.IsAbs(target) {
			return nil, fmt.Errorf("invalid --tmpfs %q: the path in the container must be absolute", text)
		}
		mounts[target] = options
	}
	return mounts, nil
}

// mounts reads values of --mount.
func mounts(values []string) ([]mount.Mount, error) {
	var all []mount.Mount
	for _, text := range values {
		fields, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			return nil, fmt.Errorf("invalid --mount %q: %w", text, err)
		}
		one := mount.Mount{Type: mount.TypeVolume}
		for _, field := range fields {
			key, value, given := strings.Cut(field, "=")
			if err := mountField(&one, strings.ToLower(key), value, given); err != nil {
				return nil, fmt.Errorf("invalid --mount %q: %w", text, err)
			}
		}
		if one.Target == "" {
			return nil, fmt.Errorf("invalid --mount %q: target is required", text)
		}
		if one.Type == mount.TypeBind && one.Source == "" {
			return nil, fmt.Errorf("invalid --mount %q: source is required", text)
		}
		all = append(all, one)
	}
	return all, nil
}

func mountField(one *mount.Mount, key, value string, given bool) error {
	switch key {
	case "type":
		one.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		if strings.HasPrefix(value, ".") {
			absolute, err := filepath.Abs(value)
			if err != nil {
				return err
			}
			value = absolute
		}
		one.Source = value
	case "target", "dst", "destination":
		one.Target = value
	case "readonly", "ro":
		var err error
		one.ReadOnly, err = truth(key, value, given)
		return err
	case "bind-propagation", "bind-recursive", "bind-nonrecursive", "bind-create-src":
		return bindField(one, key, value, given)
	case "volume-nocopy", "volume-label", "volume-subpath", "volume-driver", "volume-opt":
		return volumeField(one, key, value, given)
	case "tmpfs-size":
		size, err := units.RAMInBytes(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		tmpfsOptions(one).SizeBytes = size
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		tmpfsOptions(one).Mode = os.FileMode(mode)
	default:
		return fmt.Errorf("unexpected key %q", key)
	}
	return nil
}

// truth reads a switch: without a value it is on.
func truth(key, value string, given bool) (bool, error) {
	if !given {
		return true, nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("invalid value for %s: %s", key, value)
	}
	return on, nil
}

func bindField(one *mount.Mount, key, value string, given bool) error {
	if one.BindOptions == nil {
		one.BindOptions = &mount.BindOptions{}
	}
	o := one.BindOptions
	var err error
	switch key {
	case "bind-propagation":
		o.Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-nonrecursive":
		o.NonRecursive, err = truth(key, value, given)
	case "bind-create-src":
		o.CreateMountpoint, err = truth(key, value, given)
	case "bind-recursive":
		switch value {
		case "enabled":
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			return fmt.Errorf("invalid value for %s: %s: want enabled, disabled, writable or readonly", key, value)
		}
	}
	return err
}

func volumeField(one *mount.Mount, key, value string, given bool) error {
	if one.VolumeOptions == nil {
		one.VolumeOptions = &mount.VolumeOptions{}
	}
	o := one.VolumeOptions
	name, text, _ := strings.Cut(value, "=")
	var err error
	switch key {
	case "volume-nocopy":
		o.NoCopy, err = truth(key, value, given)
	case "volume-subpath":
		o.Subpath = value
	case "volume-label":
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[name] = text
	case "volume-driver", "volume-opt":
		if o.DriverConfig == nil {
			o.DriverConfig = &mount.Driver{Options: map[string]string{}}
		}
		if key == "volume-driver" {
			o.DriverConfig.Name = value
		} else {
			o.DriverConfig.Options[name] = text
		}
	}
	return err
}

func tmpfsOptions(one *mount.Mount) *mount.TmpfsOptions {
	if one.TmpfsOptions == nil {
		one.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return one.TmpfsOptions
}

// healthOptions are the flags that describe how to see that a container is well.
type healthOptions struct {
	command                                       string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
}

func (h *healthOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&h.command, "health-cmd", "", "command to run to check health")
	flags.DurationVar(&h.interval, "health-interval", 0, "time between running the check")
	flags.DurationVar(&h.timeout, "health-timeout", 0, "maximum time to allow one check to run")
	flags.DurationVar(&h.startPeriod, "health-start-period", 0, "start period for the container to initialize before counting retries")
	flags.DurationVar(&h.startInterval, "health-start-interval", 0, "time between running the check during the start period")
	flags.IntVar(&h.retries, "health-retries", 0, "consecutive failures needed to report unhealthy")
}

func (h healthOptions) config(none bool) (*container.HealthConfig, error) {
	given := h != healthOptions{}
	switch {
	case none && given:
		return nil, fmt.Errorf("--no-healthcheck conflicts with --health-* options")
	case none:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil
	}
	if h.interval < 0 || h.timeout < 0 || h.startPeriod < 0 || h.startInterval < 0 || h.retries < 0 {
		return nil, fmt.Errorf("--health-* options cannot be negative")
	}
	health := &container.HealthConfig{
		Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod, StartInterval: h.startInterval, Retries: h.retries,
	}
	if h.command != "" {
		health.Test = []string{"CMD-SHELL", h.command}
	}
	return health, nil
}
