"""Goes through the server's pages with a browser: pages.py URL ADMIN_TOKEN APPEND_TOKEN DIRECTORY"""

import json
import sys

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

url, admin, append, directory = sys.argv[1:]
options = webdriver.ChromeOptions()
for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,800"):
    options.add_argument(argument)
options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def see(*words, title):
    """Waits until the page of this title is there with these words."""

    def is_there(browser):
        text = browser.find_element(By.TAG_NAME, "main").text
        return browser.title.startswith(title) and all(word in text for word in words)

    passing = [NoSuchElementException, StaleElementReferenceException]
    WebDriverWait(browser, 60, ignored_exceptions=passing).until(is_there, f"{title}: {words}")


def press(*keys):
    browser.switch_to.active_element.send_keys(*keys)


try:
    browser.get(url + "/")
    see("Token", title="Sign in")
    assert browser.current_url == url + "/ui/-/sign-in", browser.current_url
    press("dpt_wrong", Keys.ENTER)
    see("not good here", title="Sign in")
    press(admin, Keys.ENTER)
    see("main", "secret", title="Repositories")
    browser.find_element(By.LINK_TEXT, "main").send_keys(Keys.ENTER)
    see("nightly", "<b>host", title="main")
    browser.save_screenshot(directory + "/overview.png")
    browser.find_element(By.PARTIAL_LINK_TEXT, "tree").send_keys(Keys.ENTER)
    see("odd", "sparse", title="/")
    browser.find_element(By.LINK_TEXT, "odd").send_keys(Keys.ENTER)
    see("<script>alert(1)<x>", title="/")
    browser.save_screenshot(directory + "/directory.png")
    browser.get(url + "/ui/secret")
    see("encrypted", title="secret")
    browser.find_element(By.CSS_SELECTOR, "header button").send_keys(Keys.ENTER)
    see("Token", title="Sign in")
    # Whoever may append sees the list, and no way into it.
    press(append, Keys.ENTER)
    see("Snapshots", title="main")
    assert browser.current_url == url + "/ui/main", browser.current_url
    assert not browser.find_elements(By.PARTIAL_LINK_TEXT, "tree")
    browser.get(url + "/ui/secret")
    see("Token", title="Sign in")
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] != "DEBUG"]
    # That a wrong token was refused is the one thing that a browser remarks upon.
    complaints = [entry for entry in complaints if "401 (Unauthorized)" not in entry["message"]]
    assert not complaints, complaints
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in sent if entry["method"] == "Network.requestWillBeSent"]
    assert asked and all(address.startswith(url + "/") for address in asked), asked
finally:
    browser.quit()
print("content")
