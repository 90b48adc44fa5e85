package plugin

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
)

// DockerSockets is where plugins for Docker put their sockets.
const DockerSockets = "/run/docker/plugins"

// DockerSpecs returns where plugins for Docker that listen elsewhere put a file
// that says where.
func DockerSpecs() []string { return []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"} }

// Place is where a plugin listens.
type Place struct {
	Name string
	File string // that says so: the socket itself, or a .spec or .json file
	// URL is unix:///path, tcp://host:port, http://… or https://….
	URL string
	TLS *TLS // of a .json file, or nil
}

// TLS is the part of a .json file about transport security. Without a CAFile
// the plugin's certificate is not checked, as with Docker.
type TLS struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

// Socket returns the path of the plugin's unix socket, or "".
func (p Place) Socket() string {
	path, _ := strings.CutPrefix(p.URL, "unix://")
	if path == p.URL {
		return ""
	}
	return path
}

// folder is a place to look in, and what for.
type folder struct {
	dir            string
	sockets, specs bool
}

// find looks for a plugin in folders, the first of which wins. An error of kind
// linkspan.ErrNotFound says that it is in none.
func find(folders []folder, name string) (Place, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return Place{}, notFound(name)
	}
	for _, f := range folders {
		for _, path := range []string{filepath.Join(f.dir, name), filepath.Join(f.dir, name, name)} {
			place, err := f.look(name, path)
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return place, err
			}
		}
	}
	return Place{}, notFound(name)
}

func notFound(name string) error {
	return linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", name)
}

// look tries the kinds of files at a path without its ending.
func (f folder) look(name, path string) (Place, error) {
	if f.sockets {
		file := path + ".sock"
		if info, err := os.Stat(file); err == nil && info.Mode()&fs.ModeSocket != 0 {
			return Place{Name: name, File: file, URL: "unix://" + file}, nil
		}
	}
	if !f.specs {
		return Place{}, fs.ErrNotExist
	}
	place, err := readSpec(name, path+".spec")
	if errors.Is(err, fs.ErrNotExist) {
		place, err = readJSON(name, path+".json")
	}
	return place, err
}

// readSpec reads a file that holds nothing but a URL.
func readSpec(name, file string) (Place, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Place{}, err
	}
	place := Place{Name: name, File: file, URL: strings.TrimSpace(string(text))}
	return place, place.check()
}

func readJSON(name, file string) (Place, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Place{}, err
	}
	var content struct {
		Name, Addr string
		TLSConfig  *TLS
	}
	if err := json.Unmarshal(text, &content); err != nil {
		return Place{}, linkspan.Errorf(linkspan.ErrInvalid, "reading %s, which says where plugin %q listens: %w", file, name, err)
	}
	place := Place{Name: name, File: file, URL: strings.TrimSpace(content.Addr), TLS: content.TLSConfig}
	return place, place.check()
}

func (p Place) check() error {
	u, err := url.Parse(p.URL)
	if err == nil {
		switch u.Scheme {
		case "unix":
			if u.Path == "" {
				err = errors.New("it names no path")
			}
		case "tcp", "http", "https":
			if u.Host == "" {
				err = errors.New("it names no host")
			}
		default:
			err = linkspan.Errorf(linkspan.ErrInvalid, "Unknown protocol %q: want unix, tcp, http or https", u.Scheme)
		}
	}
	if err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "reading %s, which says where plugin %q listens: %q: %w", p.File, p.Name, p.URL, err)
	}
	return nil
}

// scan returns all plugins that folders name, by name. Files that cannot be read
// are left out.
func scan(folders []folder) []Place {
	var names []string
	for _, f := range folders {
		entries, err := os.ReadDir(f.dir)
		if err != nil {
			continue // most machines have none of these folders
		}
		for _, entry := range entries {
			name := entry.Name()
			for _, ending := range []string{".sock", ".spec", ".json"} {
				name = strings.TrimSuffix(name, ending)
			}
			if name != entry.Name() || entry.IsDir() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	var places []Place
	for _, name := range slices.Compact(names) {
		if place, err := find(folders, name); err == nil {
			places = append(places, place)
		}
	}
	return places
}
